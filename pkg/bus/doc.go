// Package bus is JetStream for services that must not lose a message: connect, ensure what must exist, publish,
// consume.
//
// It guarantees that every publish ends in an outcome a caller can branch on: stored, refused because the
// subject is taken (ErrExists), refused for want of room (ErrFull), never sent (ErrUnavailable, ErrDenied), or
// not known (ErrUnknown). It guarantees that a message handed to a Handler is acknowledged only after the
// handler said so and the broker confirmed it, that a refused message is in the dead letters, bytes and headers
// whole, before it is given up, and that a consumer whose deliveries stall is opened anew. Trace context travels
// in the headers by a carrier of this package.
//
// It refuses to change or purge a stream, consumer or bucket that already exists: a difference is reported as a
// DriftError. It holds no subject and no stream name of its own, and no handler sees an acknowledgement.
// Delivery is at least once: a handler must stand a second delivery of the same message.
package bus
