'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const SVG = 'http://www.w3.org/2000/svg';
const byId = name => document.getElementById(name);

function make(tag, attributes, ...children) {
  const own = ['svg', 'g', 'circle', 'path', 'line', 'rect', 'text', 'title'].includes(tag);
  const node = own ? document.createElementNS(SVG, tag) : document.createElement(tag);
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

// Round numbers from low to high, about five.
function ticks(low, high) {
  if (!(high > low)) return [low];
  const raw = (high - low) / 5, unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(k => k * unit).find(each => each >= raw * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++)
    found.push(k * step);
  return found;
}

// A frame with axes; returns the picture, and where x and y go.
function frame(into, title, x, y, words) {
  const [w, h, l, r, t, b] = [560, 340, 52, 12, 10, 40];
  const svg = make('svg', {viewBox: `0 0 ${w} ${h}`, role: 'img', 'aria-label': title});
  const fx = scaled(x[0], x[1], l, w - r), fy = scaled(y[0], y[1], h - b, t);
  for (const vx of ticks(...x))
    svg.append(make('line', {x1: fx(vx), x2: fx(vx), y1: t, y2: h - b, class: 'axis'}),
      make('text', {x: fx(vx), y: h - b + 16, 'text-anchor': 'middle'}, digits(vx)));
  for (const vy of ticks(...y))
    svg.append(make('line', {x1: l, x2: w - r, y1: fy(vy), y2: fy(vy), class: 'axis'}),
      make('text', {x: l - 6, y: fy(vy) + 4, 'text-anchor': 'end'}, digits(vy)));
  svg.append(make('text', {x: (l + w - r) / 2, y: h - 4, 'text-anchor': 'middle'}, words[0]),
    make('text', {x: 12, y: (t + h - b) / 2, 'text-anchor': 'middle',
      transform: `rotate(-90 12 ${(t + h - b) / 2})`}, words[1]));
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

// The map, or the order where there are no metres
const drive = data.drive, points = [];
function kind(one) { return one.given ? (one.right ? 'right' : 'wrong') : 'silent'; }
{
  const all = data.places.concat(drive.map(one => [one.x, one.y]));
  const xs = all.map(p => p[0]), ys = all.map(p => p[1]);
  const bounds = values => [values.reduce((a, b) => Math.min(a, b)),
    values.reduce((a, b) => Math.max(a, b))];
  let [x, y] = [bounds(xs), bounds(ys)];
  if (data.metric) {  // the same scale in both
    const half = Math.max((x[1] - x[0]) / 496, (y[1] - y[0]) / 290, 0.01) * 1.05 / 2;
    x = [(x[0] + x[1]) / 2 - half * 496, (x[0] + x[1]) / 2 + half * 496];
    y = [(y[0] + y[1]) / 2 - half * 290, (y[0] + y[1]) / 2 + half * 290];
  }
  const [svg, fx, fy] = frame('map', 'Map of the drive', x, y,
    data.metric ? ['x (m)', 'y (m)'] : ['query, in order', 'place, in order']);
  svg.append(make('path', {class: 'place', d: data.places.map(
    ([px, py]) => `M${fx(px).toFixed(1)},${(fy(py) - 1.5).toFixed(1)}h3v3h-3z`).join('')}));
  drive.forEach((one, number) => {
    const dot = make('circle', {cx: fx(one.x).toFixed(1), cy: fy(one.y).toFixed(1),
      r: kind(one) === 'wrong' ? 5 : 3.5, class: 'point ' + kind(one),
      'fill-opacity': (0.25 + 0.75 * one.confidence).toFixed(2), 'data-query': number},
      make('title', {}, `${one.name}: confidence ${one.confidence.toFixed(2)}`));
    dot.addEventListener('click', () => choose(number));
    points.push(dot);
    svg.append(dot);
  });
  drive.forEach((one, number) => { if (kind(one) === 'wrong') svg.append(points[number]); });
}

// The pair
let chosen = -1;
function picture(id, source, caption) {
  const image = byId(id + '-image');
  if (source) image.src = 'data:image/jpeg;base64,' + source; else image.removeAttribute('src');
  image.alt = caption;
  byId(id + '-caption').textContent = source ? caption : caption + ' (no picture)';
}
function choose(number) {
  if (!drive.length) return;
  chosen = (number + drive.length) % drive.length;
  const one = drive[chosen];
  points.forEach((dot, k) => dot.classList.toggle('chosen', k === chosen));
  picture('query', data.queries[chosen], one.name);
  picture('match', data.pictures[one.match], `found: ${one.match_name}, similarity `
    + one.similarity.toFixed(2));
  picture('truth', one.truth < 0 ? '' : data.pictures[one.truth],
    one.truth < 0 ? 'right: none, it is not on the map' : `right: ${one.truth_name}`);
  const verdict = byId('verdict'), how = kind(one);
  verdict.className = 'verdict ' + how;
  verdict.textContent = `${chosen + 1} of ${drive.length}: `
    + {right: 'a pose, right', wrong: 'a pose, WRONG', silent: `no pose (${one.reason})`}[how]
    + `, confidence ${one.confidence.toFixed(3)}`
    + (one.error === null ? '' : `, ${digits(one.error)} m off`);
}
byId('previous').addEventListener('click', () => choose(chosen - 1));
byId('next').addEventListener('click', () => choose(chosen + 1));
document.addEventListener('keydown', event => {
  if (event.key === 'ArrowRight') choose(chosen + 1);
  else if (event.key === 'ArrowLeft') choose(chosen - 1);
  else return;
  event.preventDefault();
});

// Worst first
for (const number of data.worst) {
  const one = drive[number];
  const button = make('button', {type: 'button', 'data-query': number});
  if (data.queries[number]) button.append(make('img', {alt: '', loading: 'lazy',
    src: 'data:image/jpeg;base64,' + data.queries[number]}));
  button.append(`${one.confidence.toFixed(2)} sure` + (one.error === null ? ''
    : `, ${digits(one.error)} m off`));
  button.addEventListener('click', () => {
    choose(number);
    byId('pair').scrollIntoView({block: 'nearest'});
  });
  byId('worst').append(button);
}
if (!data.worst.length) byId('worst').textContent = 'Not one best guess is wrong.';

// Curves
{
  const [svg, fx, fy] = frame('precision', 'Precision over recall', [0, 1], [0, 1],
    ['recall: queries answered rightly', 'precision: answers that are right']);
  curve(svg, fx, fy, data.precision_recall);
}
{
  const [svg, fx, fy] = frame('reliability', 'Reliability of the confidence', [0, 1], [0, 1],
    ['confidence', 'share that is right']);
  svg.append(make('line', {x1: fx(0), y1: fy(0), x2: fx(1), y2: fy(1), class: 'ideal'}));
  curve(svg, fx, fy, data.reliability.map(([, sure, right]) => [sure, right]));
  const most = Math.max(1, ...data.reliability.map(([count]) => count));
  for (const [count, sure, right] of data.reliability)
    svg.append(make('circle', {cx: fx(sure), cy: fy(right), class: 'bar',
      r: 3 + 9 * Math.sqrt(count / most)}, make('title', {}, `${count} queries`)));
}
if (data.errors.length) {
  const last = data.errors[data.errors.length - 1][0];
  const most = data.errors.reduce((a, [, error]) => Math.max(a, error), 1);
  const [svg, fx, fy] = frame('errors', 'Error over distance', [0, last], [0, Math.min(most, 50)],
    ['metres driven', 'error of the poses (m; above 50 at 50)']);
  for (const [x, error, ok] of data.errors)
    svg.append(make('circle', {cx: fx(x).toFixed(1), cy: fy(Math.min(error, 50)).toFixed(1), r: 2.5,
      class: ok ? 'point right' : 'point wrong'}));
} else byId('errors').append('Known for drives with poses in metres only.');
for (const [stage, [low, high, counts]] of Object.entries(data.latency)) {
  const most = Math.max(1, ...counts);
  byId('latency').append(make('p', {}, stage));
  const [svg, fx, fy] = frame('latency', `Latency of ${stage}`, [low, high], [0, most],
    ['milliseconds', 'queries']);
  const width = (high - low) / counts.length;
  counts.forEach((count, k) => svg.append(make('rect', {class: 'bar', x: fx(low + k * width),
    y: fy(count), width: Math.max(1, fx(low + width) - fx(low) - 1), height: fy(0) - fy(count)})));
}
if (!Object.keys(data.latency).length) byId('latency').append('Not measured: kept descriptors.');

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
choose(data.worst.length ? data.worst[0] : 0);
document.documentElement.dataset.ready = 'yes';
