package ask

import (
	"encoding/json"
	"fmt"

	orderv1 "github.com/renthook/renthook/proto/gen/renthook/order/v1"
)

// SealContext is what env and command of an order are sealed under.
const SealContext = "order-env"

// Private is what must not be read on the bus. It is sealed as JSON.
type Private struct {
	Env     map[string]string `json:"env,omitempty"`
	Command string            `json:"command,omitempty"`
}

// Sealer is a *seal.Box.
type Sealer interface {
	Seal(plain []byte, context string) (string, error)
}

// Opener is a *seal.Box.
type Opener interface {
	Open(sealed, context string) ([]byte, error)
}

// Seal moves env and command of a spec into sealed. A spec without either stays as it is.
func Seal(box Sealer, spec *orderv1.OrderSpec) error {
	if len(spec.GetEnv()) == 0 && spec.GetCommand() == "" {
		return nil
	}
	plain, err := json.Marshal(Private{Env: spec.Env, Command: spec.Command})
	if err != nil {
		return fmt.Errorf("write env and command: %w", err)
	}
	sealed, err := box.Seal(plain, SealContext)
	if err != nil {
		return fmt.Errorf("seal env and command: %w", err)
	}
	spec.Sealed, spec.Env, spec.Command = sealed, nil, ""
	return nil
}

// Open gives what Seal put away; nothing for an empty text.
func Open(box Opener, sealed string) (Private, error) {
	if sealed == "" {
		return Private{}, nil
	}
	plain, err := box.Open(sealed, SealContext)
	if err != nil {
		return Private{}, fmt.Errorf("open env and command: %w", err)
	}
	var p Private
	if err := json.Unmarshal(plain, &p); err != nil {
		return Private{}, fmt.Errorf("read env and command: %w", err)
	}
	return p, nil
}
