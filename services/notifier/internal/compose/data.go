package compose

import (
	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
	"github.com/renthook/renthook/services/notifier/internal/channel"
)

// put sets a member unless its value says nothing.
func put[T comparable](m members, name string, value T) {
	var zero T
	if value != zero {
		m[name] = value
	}
}

// order is the public order: the names of the contract in snake case, integers as numbers, amounts as strings.
// Absent members are unknown or do not apply.
func order(o *orderv1.Order) members {
	m := members{}
	if o == nil {
		return m
	}
	put(m, "id", o.GetId())
	put(m, "client", o.GetClient())
	put(m, "account", o.GetAccount())
	m["state"], m["revision"] = o.GetState().String(), o.GetRevision()
	put(m, "market_order_id", o.GetMarketOrderId())
	put(m, "market_type", o.GetMarketType())
	put(m, "operation_id", o.GetOperationId())
	put(m, "paper", o.GetPaper())
	put(m, "unprobed", o.GetUnprobed())
	if o.GetCreateTime() != nil {
		m["create_time"] = stamp(o.GetCreateTime())
	}
	if o.GetEndsAt() != nil {
		m["ends_at"] = stamp(o.GetEndsAt())
	}
	if o.GetServer() != nil {
		m["server"] = server(o.GetServer())
	}
	if o.GetCost() != nil {
		m["cost"] = cost(o.GetCost())
	}
	if o.GetAccess() != nil {
		m["access"] = access(o.GetAccess())
	}
	if o.GetFailure() != nil {
		m["failure"] = failure(o.GetFailure())
	}
	if l := o.GetSpec().GetLabels(); len(l) > 0 {
		m["labels"] = l
	}
	if len(o.GetAttempts()) > 0 {
		m["attempts"] = attempts(o.GetAttempts())
	}
	return m
}

func server(s *orderv1.Server) members {
	m := members{"id": s.GetId()}
	put(m, "gpu", s.GetGpu())
	put(m, "gpu_name", s.GetGpuName())
	put(m, "gpu_count", s.GetGpuCount())
	put(m, "vram_gb", s.GetVramGb())
	put(m, "country", s.GetCountry())
	put(m, "reliability", s.GetReliability())
	return m
}

func cost(c *orderv1.Cost) members {
	m := members{}
	put(m, "usd_per_hour", c.GetUsdPerHour())
	put(m, "native_per_day", c.GetNativePerDay())
	put(m, "currency", c.GetCurrency())
	put(m, "usd_rate", c.GetUsdRate())
	put(m, "fees_usd_per_hour", c.GetFeesUsdPerHour())
	put(m, "creation_fee_usd", c.GetCreationFeeUsd())
	put(m, "spend", c.GetSpend())
	put(m, "worst_case_usd", c.GetWorstCaseUsd())
	return m
}

func access(a *orderv1.Access) members {
	m := members{}
	put(m, "host", a.GetHost())
	put(m, "ssh_port", a.GetSshPort())
	put(m, "ssh_user", a.GetSshUser())
	put(m, "http_url", a.GetHttpUrl())
	if len(a.GetTcpPorts()) > 0 {
		m["tcp_ports"] = a.GetTcpPorts()
	}
	return m
}

func failure(f *orderv1.Failure) members {
	return members{"code": f.GetCode(), "message": cut(f.GetMessage()), "retryable": f.GetRetryable()}
}

func attempts(list []*orderv1.Attempt) []members {
	rows := make([]members, 0, len(list))
	for _, a := range list {
		m := members{"number": a.GetNumber(), "server_id": a.GetServerId(), "outcome": a.GetOutcome()}
		put(m, "reason", cut(a.GetReason()))
		put(m, "market_type", a.GetMarketType())
		put(m, "usd_per_hour", a.GetUsdPerHour())
		if a.GetTime() != nil {
			m["time"] = stamp(a.GetTime())
		}
		rows = append(rows, m)
	}
	return rows
}

// operation names what the callback answers.
func operation(s *orderv1.Settlement) members {
	m := members{"id": s.GetOperationId(), "command": s.GetCommand(), "succeeded": s.GetSucceeded()}
	if s.GetFailure() != nil {
		m["failure"] = failure(s.GetFailure())
	}
	return m
}

// ssh is how the asker of a create logs in, without the password; nil when there is nothing to log in to.
func ssh(o *orderv1.Order, s *orderv1.Settlement) members {
	a := o.GetAccess()
	if s.GetCommand() != "order.create" || !s.GetSucceeded() || a.GetSshPort() == 0 {
		return nil
	}
	return members{"user": channel.SSHUser(a), "host": a.GetHost(), "port": a.GetSshPort()}
}

// report is what the account holds, and the orders that hold nothing yet.
func report(r *orderv1.Report) members {
	m := members{"stale": r.GetStale()}
	if r.GetReadTime() != nil {
		m["read_time"] = stamp(r.GetReadTime())
	}
	rentals := make([]members, 0, len(r.GetRentals()))
	for _, l := range r.GetRentals() {
		row := members{"market_order_id": l.GetMarketOrderId(), "status": l.GetStatus(), "managed": l.GetManaged()}
		put(row, "ssh", l.GetSsh())
		put(row, "order_id", l.GetOrderId())
		put(row, "server_id", l.GetServerId())
		rentals = append(rentals, row)
	}
	m["rentals"] = rentals
	waiting := make([]members, 0, len(r.GetWaiting()))
	for _, o := range r.GetWaiting() {
		waiting = append(waiting, order(o))
	}
	m["waiting"] = waiting
	return m
}
