// Jaeger's example application HotROD, as one program: four HTTP and gRPC services, and a MySQL and a
// Redis that it plays itself, each with a tracer of its own.
package main

import "github.com/jaegertracing/jaeger/examples/hotrod/cmd"

func main() {
	cmd.Execute()
}
