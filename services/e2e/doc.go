// Package e2e tests renthook from outside: real processes, a real broker, the simulator, signed webhooks in and
// callbacks out. It guarantees nothing by itself and holds no code that ships.
package e2e
