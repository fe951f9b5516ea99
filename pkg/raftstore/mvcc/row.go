package mvcc

// CheckRow reads a row as Load does, keeps nothing of it, and answers its name. The error says what Load would not take.
func CheckRow(r Row) (RowKey, error) {
	k, err := ParseRowKey(r.Key)
	if err == nil {
		_, err = parseRow(k, r.Value, true)
	}
	return k, err
}

// Nameless tells whether the row is the one that etcdutl leaves when it raises the revision of a restored snapshot: a version of no
// key. etcd keeps it for good, without a way to ask for it. Load does not take it.
func (r Row) Nameless() bool { return len(r.Value) == 0 && len(r.Key) == rowKeyLen }
