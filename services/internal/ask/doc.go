// Package ask reads what a sender asked for: the seed's flat JSON, the native object, and protobuf, into the
// commands of renthook.order.v1.
//
// It guarantees that a price keeps the digits it was sent with and never passes through a binary float, that what
// the seed's texts echo is printed as Python's str does, and that every refusal is a *fault.Error whose Message may
// be shown to the sender. It refuses invalid UTF-8, members that stand twice (also when they differ in case only),
// more than 16 levels of nesting, and, except on the seed's own door, members it does not know, with a suggestion:
// a typo in max_price costs money. It does no I/O and knows no settings: limits and defaults are the order service's.
package ask
