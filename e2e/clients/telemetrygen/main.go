// Command telemetrygen is the generator of the OpenTelemetry Collector's contributors, for traces.
package main

import (
	"fmt"
	"os"

	"github.com/open-telemetry/opentelemetry-collector-contrib/cmd/telemetrygen/pkg/traces"
	"github.com/spf13/pflag"
)

func main() {
	config := traces.NewConfig()
	flags := pflag.NewFlagSet("traces", pflag.ExitOnError)
	config.Flags(flags)
	if err := flags.Parse(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if err := traces.Start(config); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
