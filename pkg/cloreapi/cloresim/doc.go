// Package cloresim is a simulator of the Clore.ai market: its HTTP API under /v1, money, spot auctions, delays and
// lies included, and a control API under /sim/v1 for tests and for people.
//
// It guarantees:
//
//   - its wire types are its own, so that a misreading of the market in the client beside it cannot hide;
//   - with a directory, the whole state is on disk before an answer leaves, so that a killed simulator goes on
//     where it was, the ssh servers of running rentals on their ports included;
//   - it keeps books of its own: who asked what when, what came of it, what each rental cost, the smallest gaps
//     between the calls of a key, calls that came too early, and rentals made twice of one request;
//   - what nobody knows about the real market is a switch ([Switches]), and what the real market can do to a caller
//     can be scripted call by call ([Step]);
//   - a generated inventory is a function of its seed, number and rates, holds the documented traps ([TrapRight]
//     and following), and its prices drift as a function of seed and time.
//
// Any API key is an account of its own, with its own wallet and rate limit. The rate limit counts from the arrival
// of the last call it let pass; a refused call does not push the next one back. What happens shows in my_orders and
// in the marketplace later by the visibility lag. A running rental that asked for container port 22 has an ssh
// server, which takes the order's password or key for root and runs a few harmless commands of its own.
//
// It refuses to be the real thing: no image is run, http ports answer nothing, and rates stand still.
//
// The control API takes and gives JSON:
//
//	GET    /sim/v1/state              servers, rentals, calls, gaps and violations (?calls_after=n, ?key=name)
//	POST   /sim/v1/script             {"create_order":[step,…],…} replaces the queues it names
//	POST   /sim/v1/servers            lists one more: {"gpu","on_demand_usd_per_day","spot_usd_per_day",…} or a whole row
//	PATCH  /sim/v1/servers/{id}       changes prices, rented, reliability, online, boots, ssh, refuse_coins
//	DELETE /sim/v1/servers/{id}
//	POST   /sim/v1/rentals            {"server_id","image","ports","key"}: a human rents on the same account
//	POST   /sim/v1/rentals/{id}/end   {"reason":"outbid|host_offline|expired"}
//	POST   /sim/v1/reset              a new world; members that are not given stay as they are
//	GET    /readyz                    200 while calls are answered
package cloresim
