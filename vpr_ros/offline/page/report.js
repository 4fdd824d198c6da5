'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const SVG = 'http://www.w3.org/2000/svg';
const byId = name => document.getElementById(name);

function make(tag, attributes, ...children) {
  const drawn = ['svg', 'g', 'circle', 'path', 'line', 'rect', 'text', 'title'].includes(tag);
  const node = drawn ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function scaled(low, high, from, to) {
  return value => high > low ? from + (value - low) / (high - low) * (to - from) : (from + to) / 2;
}

function digits(value) {
  return Math.abs(value) >= 100 ? value.toFixed(0) : +value.toPrecision(3) + '';
}

// About five round numbers from low to high.
function ticks(low, high) {
  if (!(high > low)) return [low];
  const raw = (high - low) / 5, unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(k => k * unit).find(each => each >= raw * 0.999);
  const values = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++)
    values.push(k * step);
  return values;
}

// An empty plot with axes; returns its SVG, and the scales of x and y.
function plot(into, title, x, y, labels) {
  const [w, h, l, r, t, b] = [560, 340, 52, 12, 10, 40];
  const svg = make('svg', {viewBox: `0 0 ${w} ${h}`, role: 'img', 'aria-label': title});
  const fx = scaled(x[0], x[1], l, w - r), fy = scaled(y[0], y[1], h - b, t);
  for (const vx of ticks(...x))
    svg.append(make('line', {x1: fx(vx), x2: fx(vx), y1: t, y2: h - b, class: 'axis'}),
      make('text', {x: fx(vx), y: h - b + 16, 'text-anchor': 'middle'}, digits(vx)));
  for (const vy of ticks(...y))
    svg.append(make('line', {x1: l, x2: w - r, y1: fy(vy), y2: fy(vy), class: 'axis'}),
      make('text', {x: l - 6, y: fy(vy) + 4, 'text-anchor': 'end'}, digits(vy)));
  svg.append(make('text', {x: (l + w - r) / 2, y: h - 4, 'text-anchor': 'middle'}, labels[0]),
    make('text', {x: 12, y: (t + h - b) / 2, 'text-anchor': 'middle',
      transform: `rotate(-90 12 ${(t + h - b) / 2})`}, labels[1]));
  byId(into).append(svg);
  return [svg, fx, fy];
}

function curve(svg, fx, fy, points) {
  if (points.length) svg.append(make('path', {class: 'curve',
    d: 'M' + points.map(([x, y]) => `${fx(x).toFixed(1)},${fy(y).toFixed(1)}`).join('L')}));
}

// Headline
byId('title').textContent = data.title;
for (const [value, label] of data.cards)
  byId('cards').append(make('div', {class: 'card'}, make('b', {}, value), label));

// The map; without metric poses, place number over query number
const queries = data.queries, points = [];
function outcome(query) {
  return query.published ? (query.right ? 'right' : 'wrong') : 'unpublished';
}
function percent(confidence) { return digits(100 * confidence) + ' %'; }
function metres(query) {
  return query.error === null ? '' : `, ${query.error.toFixed(1)} m error`;
}
{
  const all = data.places.concat(queries.map(query => [query.x, query.y]));
  const xs = all.map(p => p[0]), ys = all.map(p => p[1]);
  const bounds = values => [values.reduce((a, b) => Math.min(a, b)),
    values.reduce((a, b) => Math.max(a, b))];
  let [x, y] = [bounds(xs), bounds(ys)];
  if (data.metric) {  // the same scale on both axes
    const half = Math.max((x[1] - x[0]) / 496, (y[1] - y[0]) / 290, 0.01) * 1.05 / 2;
    x = [(x[0] + x[1]) / 2 - half * 496, (x[0] + x[1]) / 2 + half * 496];
    y = [(y[0] + y[1]) / 2 - half * 290, (y[0] + y[1]) / 2 + half * 290];
  }
  const [svg, fx, fy] = plot('map', 'Results on the map', x, y,
    data.metric ? ['x (m)', 'y (m)'] : ['query number', 'place number']);
  svg.append(make('path', {class: 'place', d: data.places.map(
    ([px, py]) => `M${fx(px).toFixed(1)},${(fy(py) - 1.5).toFixed(1)}h3v3h-3z`).join('')}));
  queries.forEach((query, number) => {
    const dot = make('circle', {cx: fx(query.x).toFixed(1), cy: fy(query.y).toFixed(1),
      r: outcome(query) === 'wrong' ? 5 : 3.5, class: 'point ' + outcome(query),
      'fill-opacity': (0.25 + 0.75 * query.confidence).toFixed(2), 'data-query': number},
      make('title', {}, `${query.name}: ${percent(query.confidence)} confident`));
    dot.addEventListener('click', () => choose(number));
    points.push(dot);
    svg.append(dot);
  });
  // Wrong poses are drawn on top.
  queries.forEach((query, number) => {
    if (outcome(query) === 'wrong') svg.append(points[number]);
  });
}

// The selected query beside its match and the ground truth
let chosen = -1;
function show(id, jpeg, caption) {
  const image = byId(id + '-image');
  if (jpeg) image.src = 'data:image/jpeg;base64,' + jpeg; else image.removeAttribute('src');
  image.alt = caption;
  byId(id + '-caption').textContent = caption + (jpeg === '' ? ' (no image)' : '');
}
function choose(number) {
  if (!queries.length) return;
  chosen = (number + queries.length) % queries.length;
  const query = queries[chosen], result = outcome(query);
  points.forEach((dot, k) => dot.classList.toggle('chosen', k === chosen));
  show('query', data.query_images[chosen], query.name);
  show('match', data.place_images[query.match], `match: ${query.match_name}`
    + (query.similarity === null ? '' : `, similarity ${query.similarity.toFixed(2)}`));
  show('truth', query.truth < 0 ? null : data.place_images[query.truth],
    query.truth < 0 ? 'ground truth: not on the map' : `ground truth: ${query.truth_name}`);
  const verdict = byId('verdict');
  verdict.className = 'verdict ' + result;
  verdict.textContent = `${chosen + 1} of ${queries.length}: `
    + {right: 'right pose', wrong: 'WRONG pose', unpublished: `no pose (${query.reason})`}[result]
    + `, ${percent(query.confidence)} confident` + metres(query);
}
byId('previous').addEventListener('click', () => choose(chosen - 1));
byId('next').addEventListener('click', () => choose(chosen + 1));
document.addEventListener('keydown', event => {
  if (event.key === 'ArrowRight') choose(chosen + 1);
  else if (event.key === 'ArrowLeft') choose(chosen - 1);
  else return;
  event.preventDefault();
});

// The most confident mistakes
for (const number of data.mistakes) {
  const query = queries[number];
  const button = make('button', {type: 'button', 'data-query': number, class: outcome(query)});
  if (data.query_images[number]) button.append(make('img', {alt: '', loading: 'lazy',
    src: 'data:image/jpeg;base64,' + data.query_images[number]}));
  button.append(make('b', {}, query.published ? 'published' : `withheld (${query.reason})`),
    make('br'), `${percent(query.confidence)} confident` + metres(query));
  button.addEventListener('click', () => {
    choose(number);
    byId('pair').scrollIntoView({block: 'nearest'});
  });
  byId('mistakes').append(button);
}
if (!data.mistakes.length) byId('mistakes').textContent = 'No estimate is wrong.';

// Curves
{
  const [svg, fx, fy] = plot('precision', 'Precision-recall curve', [0, 1], [0, 1],
    ['recall', 'precision']);
  curve(svg, fx, fy, data.precision_recall);
}
{
  const [svg, fx, fy] = plot('reliability', 'Reliability diagram', [0, 1], [0, 1],
    ['confidence', 'share of estimates that are right']);
  svg.append(make('line', {x1: fx(0), y1: fy(0), x2: fx(1), y2: fy(1), class: 'ideal'}));
  curve(svg, fx, fy, data.reliability.map(([, confidence, right]) => [confidence, right]));
  const most = Math.max(1, ...data.reliability.map(([count]) => count));
  for (const [count, confidence, right] of data.reliability)
    svg.append(make('circle', {cx: fx(confidence), cy: fy(right), class: 'bar',
      r: 3 + 9 * Math.sqrt(count / most)}, make('title', {}, `${count} queries`)));
}
if (data.errors.length) {
  const last = data.errors[data.errors.length - 1][0];
  const most = data.errors.reduce((a, [, error]) => Math.max(a, error), 1);
  const [svg, fx, fy] = plot('errors', 'Position error along the drive', [0, last],
    [0, Math.min(most, 50)], ['distance driven (m)', 'position error (m), capped at 50']);
  for (const [x, error, ok] of data.errors)
    svg.append(make('circle', {cx: fx(x).toFixed(1), cy: fy(Math.min(error, 50)).toFixed(1), r: 2.5,
      class: ok ? 'point right' : 'point wrong'}));
} else byId('errors').append('Available only for drives with metric poses.');
for (const [stage, [low, high, counts]] of Object.entries(data.latency)) {
  const most = Math.max(1, ...counts);
  byId('latency').append(make('p', {}, stage));
  const [svg, fx, fy] = plot('latency', `Latency of ${stage}`, [low, high], [0, most],
    ['milliseconds', 'queries']);
  const width = (high - low) / counts.length;
  counts.forEach((count, k) => svg.append(make('rect', {class: 'bar', x: fx(low + k * width),
    y: fy(count), width: Math.max(1, fx(low + width) - fx(low) - 1), height: fy(0) - fy(count)})));
}
if (!Object.keys(data.latency).length) byId('latency').append('Not recorded.');

// Light and dark
const dark = window.matchMedia('(prefers-color-scheme: dark)');
function theme(on) {
  document.documentElement.classList.toggle('dark', on);
  byId('theme').setAttribute('aria-pressed', on);
}
theme(dark.matches);
dark.addEventListener('change', () => theme(dark.matches));
byId('theme').addEventListener('click', () =>
  theme(!document.documentElement.classList.contains('dark')));
choose(data.mistakes.length ? data.mistakes[0] : 0);
document.documentElement.dataset.ready = 'yes';
