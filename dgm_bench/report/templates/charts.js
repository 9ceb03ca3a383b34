"use strict";

// ------------------------------------------------------------------ elements

// An element with properties (attributes where it has no such property) and what is inside; texts stay texts.
function made(tag, properties = {}, ...inside) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...inside.flat(2).filter((part) => part !== undefined && part !== null && part !== ""));
  return element;
}

const SVG = new DOMParser().parseFromString("<svg/>", "text/html").body.firstChild.namespaceURI;

function shape(tag, attributes = {}, ...inside) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...inside.flat());
  return element;
}

const picture = (width, height, title, ...inside) =>
  shape("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": title }, ...inside);
const label = (x, y, text, anchor = "middle") => shape("text", { x, y, "text-anchor": anchor }, text);
const line = (x1, y1, x2, y2, kind) => shape("line", { x1, y1, x2, y2, class: kind });

// ------------------------------------------------------------------ numbers

// About so many round values between two, each with its text; few also where the two are as near as rounding.
function ticks(low, high, count) {
  const raw = (high - low) / count;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = unit * [1, 2, 5, 10].find((round) => unit * round >= raw * (1 - 1e-9));
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const found = [];
  const begin = Math.ceil(low / step - 1e-9);
  const many = Math.min(Math.floor(high / step + 1e-9) - begin, 2 * count);
  for (let i = 0; i <= many; i += 1) {
    const value = (begin + i) * step;
    found.push([value, (value || 0).toLocaleString("en", { minimumFractionDigits: Math.min(decimals, 20), maximumFractionDigits: Math.min(decimals, 20) })]);
  }
  return found;
}

function limits(values, share = 1, free = 0.06) {
  const ordered = [...values].sort((a, b) => a - b);
  const [low, high] = [ordered[0], ordered[Math.floor(share * (ordered.length - 1))]];
  const margin = free * (high - low) || Math.abs(high) * 0.01 || 0.5;
  return [low - margin, high + margin];
}

const between = (low, high, start, end) => (value) => start + ((value - low) / (high - low)) * (end - start);
const isNumber = (value) => typeof value === "number";

// ------------------------------------------------------------------ a verdict

// The published number with its margin, and below it what was measured; nothing where one number stands alone.
function scaleFigure(scale, unit, width) {
  const [left, right, floor] = [84, width - 16, 92];
  const reach = Math.max(scale.margin ?? 0, scale.pm ?? 0);
  const ends = scale.interval ?? [scale.measured - (scale.error ?? 0), scale.measured + (scale.error ?? 0)];
  const values = [scale.published - reach, scale.published + reach, ...ends, ...(scale.seeds ?? []), scale.so_far, scale.forecast,
    ...(scale.between ?? [])].filter((value) => isNumber(value) && !Number.isNaN(value));
  const beside = isNumber(scale.published) || scale.seeds?.length > 1;
  const something = isNumber(scale.so_far) || (isNumber(scale.measured) && beside);
  const apart = Math.max(...values) - Math.min(...values);
  if (!something || apart <= 1e-12 * Math.max(...values.map(Math.abs))) return null;  // equal but for rounding
  const [low, high] = limits(values);
  const x = between(low, high, left, right);
  const parts = [line(left, floor, right, floor, "axis")];
  for (const [value, text] of ticks(low, high, Math.max(3, Math.floor(width / 110)))) {
    parts.push(line(x(value), 8, x(value), floor, "rule"), label(x(value), floor + 15, text));
  }
  parts.push(label((left + right) / 2, floor + 32, unit));
  const whisker = (y, from, to, kind) => [line(x(from), y, x(to), y, kind), line(x(from), y - 5, x(from), y + 5, kind), line(x(to), y - 5, x(to), y + 5, kind)];
  const named = (y, text) => parts.push(label(left - 8, y + 4, text, "end"));
  if (isNumber(scale.published)) {
    const at = x(scale.published);
    if (scale.margin) parts.push(shape("rect", { class: "margin", x: x(scale.published - scale.margin), y: 8, width: x(2 * scale.margin) - x(0), height: floor - 8 }));
    parts.push(line(at, 8, at, floor, "published"));
    if (scale.pm) parts.push(...whisker(26, scale.published - scale.pm, scale.published + scale.pm, "error"));
    parts.push(shape("path", { class: "published", d: `M${at} 19l7 7-7 7-7-7z` }));
    named(26, "published");
  }
  if (isNumber(scale.measured)) {
    if (ends[0] < ends[1]) parts.push(...whisker(54, ends[0], ends[1], "measured"));
    parts.push(shape("circle", { class: "measured", cx: x(scale.measured), cy: 54, r: 5 }));
    named(54, "measured");
    if (scale.seeds.length > 1) {
      parts.push(...scale.seeds.filter(isNumber).map((value) => shape("circle", { class: "seed", cx: x(value), cy: 78, r: 3.5 })));
      named(78, "each seed");
    }
  }
  if (isNumber(scale.so_far)) {
    parts.push(shape("circle", { class: "seed", cx: x(scale.so_far), cy: 54, r: 5 }));
    named(54, "so far");
  }
  if (isNumber(scale.forecast)) {
    if (scale.between) parts.push(...whisker(78, ...scale.between, "none"));
    parts.push(shape("circle", { class: "seed", cx: x(scale.forecast), cy: 78, r: 4 }));
    named(78, "forecast");
  }
  return picture(width, floor + 38, "Measured against published", ...parts);
}

// ------------------------------------------------------------------ curves

const COLOURS = 6;
const DASHES = ["", "7 4", "2 3"];
const look = (number) => ({ class: `curve c${number % COLOURS}`, "stroke-dasharray": DASHES[Math.floor(number / COLOURS) % DASHES.length] });

function pathOf(xs, ys, x, y) {
  let path = "";
  xs.forEach((step, i) => {
    if (isNumber(ys[i])) path += `${path ? "L" : "M"}${x(step).toFixed(1)} ${y(ys[i]).toFixed(1)}`;
  });
  return path;
}

let clips = 0;

// Lines {name, steps, values, thin} over training steps; a level is a number with its name, drops are steps.
function curvesFigure({ lines, level, drops = [], unit, title, width }) {
  const height = 300, [left, right, top, floor] = [66, width - 26, 12, height - 44];
  const known = lines.map((each) => each.values.filter(isNumber)).filter((values) => values.length);
  if (!known.length) return null;
  const [low, usual] = limits(known.flat(), 0.95);
  const high = Math.max(usual, ...known.map((values) => Math.min(...values) + 0.1 * (usual - low)));
  const [first, last] = limits(lines.flatMap((each) => each.steps), 1, 0.02);
  const view = isNumber(level) ? [Math.min(low, level - 0.05 * (high - low)), Math.max(high, level + 0.05 * (high - low))] : [low, high];
  const [x, y] = [between(first, last, left, right), between(...view, floor, top)];
  const clip = `clip${(clips += 1)}`;
  const frame = [];
  for (const [value, text] of ticks(...view, 5)) frame.push(line(left, y(value), right, y(value), "rule"), label(left - 6, y(value) + 4, text, "end"));
  for (const [value, text] of ticks(first, last, Math.max(3, Math.floor(width / 110)))) frame.push(label(x(value), floor + 16, text));
  frame.push(line(left, floor, right, floor, "axis"), line(left, top, left, floor, "axis"), label((left + right) / 2, floor + 36, "training step"),
    shape("text", { transform: `translate(14 ${(top + floor) / 2}) rotate(-90)`, "text-anchor": "middle" }, unit));
  const inside = drops.map((step) => line(x(step), top, x(step), floor, "drop"));
  if (isNumber(level)) inside.push(line(left, y(level), right, y(level), "published"));
  lines.forEach((each) => inside.push(shape("path", { ...look(each.look), "stroke-width": each.thin ? 1 : each.thick ? 3 : 1.8, opacity: each.thin ? 0.55 : 1, d: pathOf(each.steps, each.values, x, y) })));
  const cut = shape("clipPath", { id: clip }, shape("rect", { x: left, y: top, width: right - left, height: floor - top }));
  return picture(width, height, title, cut, ...frame, shape("g", { "clip-path": `url(#${clip})`, fill: "none" }, ...inside));
}

function swatch(name, attributes) {
  const drawn = shape("svg", { viewBox: "0 0 24 8", width: 24, height: 8, "aria-hidden": "true" }, shape("path", { d: "M0 4H24", "stroke-width": 2, fill: "none", ...attributes }));
  return made("li", {}, drawn, name);
}

const legend = (entries) => made("ul", { className: "legend" }, entries);
