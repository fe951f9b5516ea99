package measure

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

// Table is a part of a text that is written by a program: what stands between
// the lines <!-- Name --> and <!-- end of Name -->.
type Table struct {
	Name  string
	Write func(io.Writer)
}

// Put answers the text with the table in it replaced.
func (t Table) Put(text []byte) ([]byte, error) {
	begin, end := fmt.Sprintf("<!-- %s -->\n", t.Name), fmt.Sprintf("<!-- end of %s -->\n", t.Name)
	before, rest, ok := bytes.Cut(text, []byte(begin))
	_, after, found := bytes.Cut(rest, []byte(end))
	if !ok || !found {
		return nil, fmt.Errorf("no lines <!-- %s --> and <!-- end of %[1]s -->", t.Name)
	}
	var out bytes.Buffer
	out.Write(before)
	out.WriteString(begin)
	t.Write(&out)
	out.WriteString(end)
	out.Write(after)
	return out.Bytes(), nil
}

// PutInto replaces the table in a file.
func (t Table) PutInto(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if text, err = t.Put(text); err != nil {
		return fmt.Errorf("write table into %s: %w", path, err)
	}
	return os.WriteFile(path, text, 0o644)
}
