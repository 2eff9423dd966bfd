// Refusals as the protocol wants them: a google.rpc.Status with details in the trailer.

import grpc from "@grpc/grpc-js";
import protobuf from "protobufjs";

const { root } = protobuf.parse(
  `syntax = "proto3";
   package google.rpc;
   message Detail { string type_url = 1; bytes value = 2; }
   message Status { int32 code = 1; string message = 2; repeated Detail details = 3; }
   message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
   message FieldViolation { string field = 1; string description = 2; }
   message BadRequest { repeated FieldViolation field_violations = 1; }
   message ResourceInfo { string resource_type = 1; string resource_name = 2; string owner = 3; string description = 4; }`,
  { keepCase: true },
);
const type = (name) => root.lookupType(`google.rpc.${name}`);

function detail(name, fields) {
  return { type_url: `type.googleapis.com/google.rpc.${name}`, value: type(name).encode(type(name).create(fields)).finish() };
}

/** A refusal: `code` and `reason` as in docs/protocol.md, `details` as pairs of a google.rpc message's name and its fields. */
export class Refusal extends Error {
  constructor(code, reason, message, { facts = {}, details = [] } = {}) {
    super(message);
    this.code = grpc.status[code];
    this.details = message;
    const info = detail("ErrorInfo", { reason, domain: "bilevel.v1", metadata: facts });
    const status = { code: this.code, message, details: [info, ...details.map(([name, fields]) => detail(name, fields))] };
    this.metadata = new grpc.Metadata();
    this.metadata.set("grpc-status-details-bin", Buffer.from(type("Status").encode(type("Status").create(status)).finish()));
  }
}

/** `violations` are pairs of a field and what it must be. */
export function invalid(...violations) {
  const message = violations.map(([field, description]) => `${field}: ${description}`).join("; ");
  const fields = violations.map(([field, description]) => ({ field, description }));
  return new Refusal("INVALID_ARGUMENT", "INVALID_ARGUMENT", message, { details: [["BadRequest", { field_violations: fields }]] });
}

const resource = (kind, name) => ["ResourceInfo", { resource_type: kind, resource_name: name }];

export function notFound(kind, name) {
  return new Refusal("NOT_FOUND", "NOT_FOUND", `${kind} '${name}' does not exist`, {
    facts: { resource: kind, name }, details: [resource(kind, name)],
  });
}

export function wrongState(kind, name, state, allowed) {
  const message = `${kind} '${name}' is ${state}, must be ${allowed.join(" or ") || "in no state"}`;
  return new Refusal("FAILED_PRECONDITION", "WRONG_STATE", message, {
    facts: { resource: kind, name, state, allowed: allowed.join(",") }, details: [resource(kind, name)],
  });
}

export function conflict(kind, name) {
  const message = `${kind} '${name}' was changed since you read it: read it again and repeat the change`;
  return new Refusal("ABORTED", "CONFLICT", message, { details: [resource(kind, name)] });
}

export function unimplemented(feature) {
  return new Refusal("UNIMPLEMENTED", "UNIMPLEMENTED", `${feature} is not offered by this server`, { facts: { feature } });
}

export function unavailable(dependency, why) {
  return new Refusal("UNAVAILABLE", "DEPENDENCY_UNAVAILABLE", `${dependency} cannot be reached: ${why}`, { facts: { dependency } });
}

export function exhausted(field, limit) {
  return new Refusal("RESOURCE_EXHAUSTED", "EXHAUSTED", `${field} has reached its limit of ${limit}`, {
    facts: { field, limit: String(limit) },
  });
}
