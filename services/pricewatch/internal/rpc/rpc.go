// Package rpc answers renthook.market.v1.MarketService from what a view shows. It guarantees that the rows of one
// answer are of one poll; it refuses more than a bounded number of names.
package rpc

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/renthook/renthook/pkg/fault"
	marketv1 "github.com/renthook/renthook/proto/gen/renthook/market/v1"
	"github.com/renthook/renthook/services/internal/gpu"
	"github.com/renthook/renthook/services/internal/marketview"
)

// mostNames bounds what one call asks for.
const mostNames = 1000

// Market is what the service needs of a view.
type Market interface{ Market() *marketview.Market }

// Server implements MarketService.
type Server struct {
	marketv1.UnimplementedMarketServiceServer
	view Market
}

// New makes a server that answers from view.
func New(view Market) *Server { return &Server{view: view} }

// ListModels lists the price board; before the first snapshot an empty one of poll 0. Names may be written as people
// write them; what is not listed is left out.
func (s *Server) ListModels(_ context.Context, req *marketv1.ListModelsRequest) (*marketv1.ListModelsResponse, error) {
	if len(req.GetGpus()) > mostNames {
		return nil, fault.New(fault.Invalid, "TOO_MANY_GPUS", "at most %d gpus can be asked for", mostNames)
	}
	m := s.view.Market()
	if m == nil {
		return &marketv1.ListModelsResponse{}, nil
	}
	wanted := make(map[string]bool, len(req.GetGpus()))
	for _, name := range req.GetGpus() {
		wanted[gpu.Slug(name)] = true
	}
	res := &marketv1.ListModelsResponse{
		Poll: m.Poll.Number, BeginTime: timestamppb.New(m.Poll.Began),
		TotalServers: int32(m.Poll.Servers), TotalAvailable: int32(m.Poll.Available),
	}
	for _, row := range m.Models() {
		if len(wanted) > 0 && !wanted[row.GPU] {
			continue
		}
		res.Models = append(res.Models, &marketv1.Model{
			Gpu: row.GPU, GpuName: row.Name, Available: int32(row.Available), Total: int32(row.Total),
			MinSpotUsdPerHour: text(row.Spot), MinOnDemandUsdPerHour: text(row.OnDemand),
		})
	}
	return res, nil
}

func text(p marketview.Price) string {
	if p.ServerID == 0 {
		return ""
	}
	return p.USDPerHour.String()
}
