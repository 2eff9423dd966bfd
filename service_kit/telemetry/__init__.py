"""What operators measure: metrics for Prometheus and traces for OpenTelemetry, each an extra and off by default."""
