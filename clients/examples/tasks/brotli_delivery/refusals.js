// INVALID_ARGUMENT as the protocol wants it: a google.rpc.Status whose details name every wrong field.

import grpc from "@grpc/grpc-js";
import protobuf from "protobufjs";

const { root } = protobuf.parse(`
  syntax = "proto3";
  package google.rpc;
  message Detail { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Detail details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; }
  message FieldViolation { string field = 1; string description = 2; }
  message BadRequest { repeated FieldViolation field_violations = 1; }
`, { keepCase: true });

function encoded(name, fields) {
  const type = root.lookupType(`google.rpc.${name}`);
  return type.encode(type.create(fields)).finish();
}

const detail = (name, fields) => ({ type_url: `type.googleapis.com/google.rpc.${name}`, value: encoded(name, fields) });

export function invalid(violations) {
  const code = grpc.status.INVALID_ARGUMENT;
  const message = violations.map(({ parameter, description }) => `${parameter}: ${description}`).join("; ");
  const fields = violations.map(({ parameter, description }) => ({ field: parameter, description }));
  const details = [
    detail("ErrorInfo", { reason: "INVALID_CONFIGURATION", domain: "bilevel.v1" }),
    detail("BadRequest", { field_violations: fields }),
  ];
  const metadata = new grpc.Metadata();
  metadata.set("grpc-status-details-bin", Buffer.from(encoded("Status", { code, message, details })));
  return { code, details: message, metadata };
}
