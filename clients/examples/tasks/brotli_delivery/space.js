// What may vary, and what is wrong with a configuration.

const integer = (name, minimum, maximum, value, documentation) => ({
  name, kind: "PARAMETER_KIND_INTEGER", minimum, maximum, scale: "SCALE_LINEAR",
  defaultValue: { intValue: value }, documentation,
});
const boolean = (name, documentation) => ({
  name, kind: "PARAMETER_KIND_BOOLEAN", defaultValue: { boolValue: false }, documentation,
});
const choice = (name, choices, documentation) => ({
  name, kind: "PARAMETER_KIND_CATEGORICAL", documentation,
  choices: choices.map((text) => ({ stringValue: text })), defaultValue: { stringValue: choices[0] },
});

export const PARAMETERS = [
  integer("quality", 0, 11, 11, "How hard the compressor tries; 11 is what zlib takes when nothing is said."),
  integer("window_bits", 10, 30, 22, "Logarithm to base 2 of the window in bytes."),
  boolean("large_window", "Whether windows of more than 24 bits are allowed."),
  choice("mode", ["generic", "text", "font"], "What sort of data the compressor expects."),
  integer("block_bits", 16, 24, 18, "Logarithm to base 2 of the largest input block in bytes."),
  integer("postfix_bits", 0, 3, 0, "Bits of a distance that are coded apart."),
  boolean("size_hint", "Whether the compressor is told how long the input is."),
  boolean("plain_literals", "Whether the context of literals is left out of the model."),
];

export const CONSTRAINTS = ["window_bits above 24 needs large_window"];

const number = (value) => (value.kind === "intValue" ? Number(value.intValue) : value.doubleValue);

/** A value of the wire as JavaScript's own; undefined where the parameter does not take it. */
function read(parameter, value) {
  switch (parameter.kind) {
    case "PARAMETER_KIND_INTEGER": {
      const found = value.kind === "intValue" || value.kind === "doubleValue" ? number(value) : NaN;
      return Number.isInteger(found) && found >= parameter.minimum && found <= parameter.maximum ? found : undefined;
    }
    case "PARAMETER_KIND_BOOLEAN":
      return value.kind === "boolValue" ? value.boolValue : undefined;
    default:
      return parameter.choices.some((allowed) => value.kind === "stringValue" && allowed.stringValue === value.stringValue)
        ? value.stringValue
        : undefined;
  }
}

function allowed(parameter) {
  switch (parameter.kind) {
    case "PARAMETER_KIND_INTEGER":
      return `an integer from ${parameter.minimum} to ${parameter.maximum}`;
    case "PARAMETER_KIND_BOOLEAN":
      return "true or false";
    default:
      return `one of ${parameter.choices.map((allowed) => allowed.stringValue).join(", ")}`;
  }
}

const named = Object.fromEntries(PARAMETERS.map((parameter) => [parameter.name, parameter]));
const plain = (value) => value.stringValue ?? value.boolValue ?? value.intValue;

/** The complete configuration as plain values, and what is wrong with the one that was sent. */
export function complete(sent) {
  const configuration = Object.fromEntries(PARAMETERS.map(({ name, defaultValue }) => [name, plain(defaultValue)]));
  const violations = [];
  for (const [name, value] of Object.entries(sent?.values ?? {})) {
    const parameter = Object.hasOwn(named, name) ? named[name] : undefined;
    const found = parameter && read(parameter, value);
    if (parameter === undefined) {
      violations.push({ parameter: name, description: `is not a parameter; known are ${Object.keys(named).join(", ")}` });
    } else if (found === undefined) {
      violations.push({ parameter: name, description: `must be ${allowed(parameter)}` });
    } else {
      configuration[name] = found;
    }
  }
  return { configuration, violations };
}

/** What is wrong with a combination of values that are all right one by one. */
export function conflicts({ window_bits, large_window }) {
  return window_bits > 24 && !large_window ? [{ parameter: "", description: CONSTRAINTS[0] }] : [];
}
