"""The tools around the localiser: build a map, replay a bag, evaluate. No middleware here."""
