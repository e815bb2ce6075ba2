package seed

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/renthook/renthook/services/ingress/internal/answer"
	"github.com/renthook/renthook/services/ingress/internal/limit"
	"github.com/renthook/renthook/services/internal/money"
)

// soon is when to ask again for a market that was never read: the first poll takes some seconds.
const soon = 5 * time.Second

// row is one model of the summary. MinPrice is USD per hour for the whole server, a JSON number or null.
type row struct {
	Available int          `json:"available"`
	Total     int          `json:"total"`
	MinPrice  *json.Number `json:"min_price"`
}

// marketplace answers from memory: what pricewatch published last.
func (d *Door) marketplace(w http.ResponseWriter, r *http.Request) {
	if v := d.deps.Limits.Address(r.Context(), limit.Addr(r, d.cfg.TrustedProxies)); !v.Allowed {
		d.refuse(w, &request{Request: r}, errLimit.After(v.RetryAfter))
		return
	}
	if poll, _, _ := d.deps.Market.Snapshot(); poll == 0 {
		answer.RetryAfter(w, soon)
		say(w, http.StatusServiceUnavailable, "marketplace not read yet")
		return
	}
	summary := map[string]row{}
	total, available := 0, 0
	for _, m := range d.deps.Market.Models() {
		out := row{Available: m.Available, Total: m.Total}
		if m.Spot.ServerID != 0 {
			// A millionth of a dollar an hour is more than anybody acts on; a third of a coin's price has no end.
			price := json.Number(money.Text(m.Spot.USDPerHour.Round(6)))
			out.MinPrice = &price
		}
		summary[m.Name] = out
		total += m.Total
		available += m.Available
	}
	answer.JSON(w, http.StatusOK, contentType, map[string]any{
		"status": "ok", "summary": summary, "total_servers": total, "total_available": available,
	})
}
