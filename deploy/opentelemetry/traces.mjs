// Turns traces on: node --import ./deploy/opentelemetry/traces.mjs server/main.ts
//
// It needs @opentelemetry/sdk-node beside it (docs/observing.md), and takes its settings from the environment, like every SDK of
// OpenTelemetry: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, OTEL_RESOURCE_ATTRIBUTES and so on.
import { NodeSDK } from '@opentelemetry/sdk-node'

new NodeSDK({
  serviceName: process.env.OTEL_SERVICE_NAME ?? 'assay',
  // Assay creates its own spans. Instrumentations that patch node:http and pg would record each verify, and SQL.
  instrumentations: [],
  // Metrics are at /metrics, the log is on standard output.
  metricReaders: [],
  logRecordProcessors: [],
}).start()
