// Typed values of a parameter space: checking what came from outside, and drawing at random.

const KIND = "PARAMETER_KIND_";

export const content = (value) => value?.[value.kind];
const integer = (number) => ({ kind: "int_value", int_value: number });
const real = (number) => ({ kind: "double_value", double_value: number });
const numeric = (value) => (["int_value", "double_value"].includes(value?.kind) ? Number(content(value)) : NaN);

function inRange(parameter, number) {
  if (!Number.isFinite(number)) return false;
  if (parameter.minimum !== undefined && number < parameter.minimum) return false;
  if (parameter.maximum !== undefined && number > parameter.maximum) return false;
  if (parameter.step === undefined || !linear(parameter)) return true;
  const steps = (number - (parameter.minimum ?? 0)) / parameter.step;
  return Math.abs(steps - Math.round(steps)) < 1e-9;
}

const linear = ({ scale }) => scale !== "SCALE_LOG2" && scale !== "SCALE_LOG10";

/** The value in its exact type, or undefined where the parameter does not take it. */
function typed(parameter, value) {
  switch (parameter.kind.slice(KIND.length)) {
    case "INTEGER":
      return Number.isInteger(numeric(value)) && inRange(parameter, numeric(value)) ? integer(numeric(value)) : undefined;
    case "REAL":
      return inRange(parameter, numeric(value)) ? real(numeric(value)) : undefined;
    case "BOOLEAN":
      return value.kind === "bool_value" ? value : undefined;
    case "CATEGORICAL":
      return parameter.choices.find((choice) => sameValue(choice, value));
    case "LIST": {
      const numbers = value.kind === "list_value" ? value.list_value.values.map(numeric) : undefined;
      const long = parameter.length === undefined || numbers?.length === parameter.length;
      const fits = numbers && long && numbers.every((number) => inRange(parameter, number));
      return fits ? { kind: "list_value", list_value: { values: numbers.map(real) } } : undefined;
    }
    default: {
      const text = value.kind === "string_value" ? value.string_value : "";
      const matches = !parameter.pattern || new RegExp(`^(?:${parameter.pattern})$`, "u").test(text);
      return text && text.length <= (parameter.max_length || 4096) && matches ? value : undefined;
    }
  }
}

export function sameValue(a, b) {
  const number = numeric(a);
  if (!Number.isNaN(number)) return number === numeric(b);
  if (a?.kind !== b?.kind) return false;
  if (a?.kind !== "list_value") return content(a) === content(b);
  const [left, right] = [a.list_value.values, b.list_value.values];
  return left.length === right.length && left.every((value, index) => sameValue(value, right[index]));
}

/** `sent` in exact types, and pairs of a parameter and what is wrong with it. */
export function check(space, sent) {
  const [values, violations] = [{}, []];
  for (const [name, value] of Object.entries(sent ?? {})) {
    const parameter = space.parameters.find((known) => known.name === name);
    const found = parameter && typed(parameter, value);
    if (!parameter) violations.push([name, `is not a parameter; known are ${space.parameters.map((known) => known.name).join(", ")}`]);
    else if (found === undefined) violations.push([name, `must be ${allowed(parameter)}`]);
    else if (parameter.locked && !sameValue(found, parameter.default_value)) violations.push([name, "is locked"]);
    else values[name] = found;
  }
  return { values, violations };
}

function allowed({ kind, minimum, maximum, choices, length, max_length: longest }) {
  const bounds = `from ${minimum ?? "any"} to ${maximum ?? "any"}`;
  switch (kind.slice(KIND.length)) {
    case "INTEGER": return `an integer ${bounds}`;
    case "REAL": return `a number ${bounds}`;
    case "BOOLEAN": return "true or false";
    case "CATEGORICAL": return `one of ${choices.map(content).join(", ")}`;
    case "LIST": return `a list of ${length ?? "any number of"} numbers, each ${bounds}`;
    default: return `a text of 1 to ${longest || 4096} characters`;
  }
}

export const defaults = (space) => Object.fromEntries(space.parameters.map((p) => [p.name, typed(p, p.default_value)]));
export const editable = (space, frozen = []) => space.parameters.filter((p) => !p.locked && !frozen.includes(p.name));

/** A generator of numbers in [0, 1) that gives the same ones for the same seed (mulberry32). */
export function random(seed) {
  let state = Number(BigInt.asUintN(32, BigInt(seed)));
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function drawNumber(parameter, rng, near) {
  const low = parameter.minimum ?? near - Math.max(1, Math.abs(near));
  const high = parameter.maximum ?? near + Math.max(1, Math.abs(near));
  if (parameter.step !== undefined && linear(parameter)) {
    return low + Math.floor(rng() * (Math.floor((high - low) / parameter.step) + 1)) * parameter.step;
  }
  if (linear(parameter) || low <= 0) return low + rng() * (high - low);
  return Math.min(high, low * (high / low) ** rng());
}

/** A value at random; undefined for texts, which cannot be drawn. */
export function draw(parameter, rng) {
  const near = parameter.default_value;
  switch (parameter.kind.slice(KIND.length)) {
    case "INTEGER": return integer(Math.floor(drawNumber(parameter, rng, numeric(near))));
    case "REAL": return real(drawNumber(parameter, rng, numeric(near)));
    case "BOOLEAN": return { kind: "bool_value", bool_value: rng() < 0.5 };
    case "CATEGORICAL": return parameter.choices[Math.floor(rng() * parameter.choices.length)];
    case "LIST":
      return { kind: "list_value", list_value: { values: near.list_value.values.map((v) => real(drawNumber(parameter, rng, numeric(v)))) } };
    default: return undefined;
  }
}
