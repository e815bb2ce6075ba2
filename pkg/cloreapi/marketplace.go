package cloreapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Marketplace is one read of every listed server.
type Marketplace struct {
	Servers []Server
	// Unreadable counts rows that are no server: not an object, without id, or with a member of a wrong kind.
	Unreadable int
	// Digest is the SHA-256 of the answer's bytes: equal digests mean an unchanged market.
	Digest string
}

// Marketplace lists every server. The answer is decoded row by row as it arrives, so that its bytes are never held
// whole, and a row that cannot be read costs that row; a body that is cut or malformed is an error, never a
// shorter list.
func (p *Public) Marketplace(ctx context.Context) (*Marketplace, error) {
	const endpoint = "marketplace"
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	res, err := p.send(ctx, http.MethodGet, endpoint, nil, nil)
	if err != nil {
		return nil, err
	}
	defer res.close()
	digest := sha256.New()
	m, v, err := decodeMarketplace(io.TeeReader(res.body, digest))
	if err != nil {
		if !errors.Is(err, ErrTooLarge) && ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", ErrNotJSON, err)
		}
		return nil, res.fail(err)
	}
	if err := v.judge(res); err != nil {
		return nil, err
	}
	if m.Servers == nil {
		return nil, res.fail(fmt.Errorf("%w: it has no servers", ErrNotJSON))
	}
	if res.status != http.StatusOK {
		return nil, res.fail(errors.New("code 0 with an error status"))
	}
	m.Digest = hex.EncodeToString(digest.Sum(nil))
	return m, nil
}

func decodeMarketplace(r io.Reader) (*Marketplace, *verdict, error) {
	m, rest := new(Marketplace), make(map[string]json.RawMessage)
	d := json.NewDecoder(r)
	if err := expect(d, json.Delim('{')); err != nil {
		return nil, nil, err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, nil, err
		}
		if name == "servers" {
			if err := m.decodeServers(d); err != nil {
				return nil, nil, err
			}
			continue
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, nil, err
		}
		rest[name.(string)] = value
	}
	if err := expect(d, json.Delim('}')); err != nil {
		return nil, nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, nil, errors.Join(errors.New("something follows the object"), err)
	}
	raw, err := json.Marshal(rest)
	if err != nil {
		return nil, nil, err
	}
	v := new(verdict)
	return m, v, json.Unmarshal(raw, v)
}

func (m *Marketplace) decodeServers(d *json.Decoder) error {
	if m.Servers != nil {
		return errors.New("there are two lists of servers")
	}
	if err := expect(d, json.Delim('[')); err != nil {
		return err
	}
	m.Servers = make([]Server, 0, 4096)
	for d.More() {
		// Decoded where it stays: rows are large.
		last := len(m.Servers)
		m.Servers = append(m.Servers, Server{})
		err := d.Decode(&m.Servers[last])
		var kind *json.UnmarshalTypeError
		switch {
		case err == nil && m.Servers[last].ID > 0:
		case err == nil, errors.As(err, &kind), errors.As(err, new(*kindError)):
			m.Servers = m.Servers[:last]
			m.Unreadable++
		default:
			return err
		}
	}
	return expect(d, json.Delim(']'))
}

func expect(d *json.Decoder, want json.Delim) error {
	got, err := d.Token()
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%.40v where %v was expected", got, want)
	}
	return nil
}
