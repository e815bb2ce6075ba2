package commands

import (
	"fmt"
	"path/filepath"

	"github.com/renthook/renthook/services/cmd/internal/cli"
	"github.com/renthook/renthook/services/stack"
)

// Init writes what the services need as processes of their own.
type Init struct {
	Data       string `help:"Where secrets, settings and environments are written." default:"data/apart" placeholder:"DIR"`
	HTTP       string `name:"http" help:"Address of the HTTP doors." default:"127.0.0.1:8080" placeholder:"ADDR"`
	GRPC       string `name:"grpc" help:"Address of gRPC." default:"127.0.0.1:9090" placeholder:"ADDR"`
	Pricewatch string `help:"Address of pricewatch's gRPC." default:"127.0.0.1:9091" placeholder:"ADDR"`
	Admin      string `help:"Address of ingress's metrics and health; the other services take the ports after it." default:"127.0.0.1:8081" placeholder:"ADDR"`
	NATS       string `name:"nats" help:"Where the broker is found." default:"127.0.0.1:4222" placeholder:"ADDR"`
	NATSListen string `name:"nats-listen" help:"Where the broker listens, if elsewhere." placeholder:"ADDR"`
	NATSDir    string `name:"nats-dir" help:"Where the broker's configuration and streams are; nats under --data by default." placeholder:"DIR"`
	MarketURL  string `name:"market-url" help:"Where the simulated market is found." default:"http://127.0.0.1:8090" placeholder:"URL"`
}

// Run writes it, says what was written, and refuses what the services would refuse of the environment beside it.
func (c *Init) Run(s *cli.Streams) error {
	made, err := stack.Apart(stack.ApartConfig{
		Data: c.Data, BrokerData: c.NATSDir, HTTP: c.HTTP, GRPC: c.GRPC, Pricewatch: c.Pricewatch, Admin: c.Admin,
		NATS: c.NATS, NATSListen: c.NATSListen, MarketURL: c.MarketURL,
	})
	for _, path := range made {
		_, _ = fmt.Fprintln(s.Out, "made", path)
	}
	if err != nil {
		return err
	}
	if len(made) == 0 {
		_, _ = fmt.Fprintln(s.Err, "everything is there already and was kept; delete a file to have it made again")
	}
	if _, err := (cli.SettingsFlags{Config: filepath.Join(c.Data, stack.SettingsFile)}).Load(s, false); err != nil {
		return &cli.ExitError{Code: cli.ExitUsage, Err: err}
	}
	_, err = fmt.Fprint(s.Out, signedRequest(c.HTTP, filepath.Join(c.Data, stack.SecretFile)))
	return err
}
