// Package remote asks the order service in the name of a client. It guarantees a deadline on every call, and refuses
// to write: what is asked for goes over the bus.
package remote

import (
	"context"
	"time"

	"github.com/renthook/renthook/pkg/secret"
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/internal/auth"
)

// timeout bounds one call: a reader is told "unavailable" rather than left waiting.
const timeout = 3 * time.Second

// Orders reads orders and operations. Errors are gRPC statuses.
type Orders struct {
	Client orderv1.OrderServiceClient
	// Token is the installation's internal token.
	Token secret.String
}

func (o Orders) behalf(ctx context.Context, client string) (context.Context, context.CancelFunc) {
	return context.WithTimeout(auth.OnBehalf(ctx, o.Token, client), timeout)
}

// Get reads one order of the client.
func (o Orders) Get(ctx context.Context, client, id string) (*orderv1.Order, error) {
	ctx, cancel := o.behalf(ctx, client)
	defer cancel()
	resp, err := o.Client.GetOrder(ctx, &orderv1.GetOrderRequest{Id: id})
	return resp.GetOrder(), err
}

// List reads one page of the client's orders.
func (o Orders) List(ctx context.Context, client string, req *orderv1.ListOrdersRequest) (*orderv1.ListOrdersResponse, error) {
	ctx, cancel := o.behalf(ctx, client)
	defer cancel()
	return o.Client.ListOrders(ctx, req)
}

// Explain reads every decision about one order of the client.
func (o Orders) Explain(ctx context.Context, client, id string) (*orderv1.ExplainOrderResponse, error) {
	ctx, cancel := o.behalf(ctx, client)
	defer cancel()
	return o.Client.ExplainOrder(ctx, &orderv1.ExplainOrderRequest{Id: id})
}

// Operation reads one operation of the client.
func (o Orders) Operation(ctx context.Context, client, id string) (*orderv1.Operation, error) {
	ctx, cancel := o.behalf(ctx, client)
	defer cancel()
	resp, err := o.Client.GetOperation(ctx, &orderv1.GetOperationRequest{Id: id})
	return resp.GetOperation(), err
}
