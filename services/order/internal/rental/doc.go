// Package rental decides what an order does next. It performs nothing: Decide takes a state, an event and a time and
// returns the next state and what is to be done about it.
//
// It guarantees that an order has at most one intent open or rental held at a time; that a new server is tried only
// after the one before was refused, proved absent or proved ended; that once an end is wanted no further server is
// tried; and that every operation is settled exactly once. It refuses events that make no sense in a state, by
// ErrIllegal, and does nothing for events that come late or twice. It reads no clock, does no I/O and knows no bus.
package rental
