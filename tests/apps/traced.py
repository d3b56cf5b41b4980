"""An application under OpenTelemetry's WSGI instrumentation, whose spans are printed."""

from opentelemetry import trace
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

import apps.router


class Printed(SpanExporter):
    """Print a line for each span: its name, the status code of its response, and its own status."""

    def export(self, spans):
        for span in spans:
            names = ("http.status_code", "http.response.status_code")
            code = next((span.attributes[name] for name in names if name in span.attributes), "-")
            print("SPAN", span.name, code, span.status.status_code.name, flush=True)
        return SpanExportResult.SUCCESS


provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(Printed()))
trace.set_tracer_provider(provider)
app = OpenTelemetryMiddleware(apps.router.app)
