// Package cloreapi is a client of the Clore.ai HTTP API, as its documentation, its public clients and recordings
// of real answers have it.
//
// It guarantees:
//
//   - the body is read before the HTTP status is looked at: the market says business refusals with 200 and with 500;
//   - every failure says whether bytes may have left this process (Sent), so that a caller never has to guess
//     whether an order can exist;
//   - a call that changes something is one request on a connection of its own: no retry by this package or by
//     net/http, no redirect, no Idempotency-Key header (net/http would replay the POST because of it);
//   - answers are bounded (16 MiB unless configured) after decompression, and calls are bounded in time;
//   - amounts are the market's own digits ([Number]) and decimals, never binary floats;
//   - the API key goes only into the auth header of the configured host and never into an error.
//
// It refuses to pace: the market allows one call a second per key and one create_order in five, and whoever holds
// the account must space the calls, because only the holder knows all of them. It follows no proxy settings.
//
// [Public] has the one call that needs no key, [Reader] adds the calls that read an account, [Client] those that
// change it: code that must not spend is given a type that cannot.
package cloreapi
