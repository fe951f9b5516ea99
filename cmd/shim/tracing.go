package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	tracesdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.40.0"
	"go.opentelemetry.io/otel/trace"
)

const samplingRateMax = 1_000_000 // per million

// tracingEndTimeout is how long the last spans have to reach the collector.
const tracingEndTimeout = 3 * time.Second

// validateTracing reports, in etcd's words, what is wrong if tracing is on.
func (c *Config) validateTracing() error {
	switch rate := c.DistributedTracingSamplingRate; {
	case !c.EnableDistributedTracing:
		return nil
	case rate < 0:
		return errors.New("distributed tracing configurition is not valid: (tracing sampling rate must be positive)")
	case rate > samplingRateMax:
		return fmt.Errorf("distributed tracing configurition is not valid: (tracing sampling rate must be less than %d)", samplingRateMax)
	}
	return nil
}

// startTracing is --enable-distributed-tracing: spans go to the collector in
// batches, from a goroutine of the SDK's with a bounded queue; what does not fit
// is lost. The collector need not be there. Without the flag the provider is nil,
// and nothing of this is started.
func startTracing(c *Config, log *slog.Logger) (provider trace.TracerProvider, stop func(), err error) {
	if !c.EnableDistributedTracing {
		return nil, func() {}, nil
	}
	warn := newWarnings(log)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { warn.log("tracing", "distributed tracing", "error", err) }))
	exporter, err := otlptracegrpc.New(bg, otlptracegrpc.WithInsecure(), otlptracegrpc.WithEndpoint(c.DistributedTracingAddress))
	if err != nil {
		return nil, nil, fmt.Errorf("distributed tracing: %w", err)
	}
	attrs := []resource.Option{resource.WithAttributes(semconv.ServiceNameKey.String(c.DistributedTracingServiceName))}
	if id := c.DistributedTracingServiceInstanceID; id != "" {
		attrs = append(attrs, resource.WithAttributes(semconv.ServiceInstanceIDKey.String(id)))
	}
	res, err := resource.New(bg, attrs...)
	if err != nil {
		return nil, nil, fmt.Errorf("distributed tracing: %w", err)
	}
	p := tracesdk.NewTracerProvider(tracesdk.WithBatcher(exporter), tracesdk.WithResource(res), tracesdk.WithSampler(c.sampler()))
	log.Debug("distributed tracing enabled", "address", c.DistributedTracingAddress, "service-name", c.DistributedTracingServiceName,
		"service-instance-id", c.DistributedTracingServiceInstanceID, "sampling-rate", c.DistributedTracingSamplingRate)
	log.Info("distributed tracing setup enabled")
	return p, func() {
		ctx, cancel := context.WithTimeout(bg, tracingEndTimeout)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil { // ends the exporter as well
			log.Warn("the last spans were not sent", "error", err)
		}
	}, nil
}

// sampler decides with the caller, who traces or not; calls without a decision are
// traced at the rate.
func (c *Config) sampler() tracesdk.Sampler {
	if c.DistributedTracingSamplingRate == 0 {
		return tracesdk.ParentBased(tracesdk.NeverSample())
	}
	return tracesdk.ParentBased(tracesdk.TraceIDRatioBased(float64(c.DistributedTracingSamplingRate) / samplingRateMax))
}
