package etcdapi

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/kubeshim/shim/pkg/raftstore/mvcc"
)

// Field numbers of the KV responses. Field 1 is the header in all of them.
const (
	respHeader protowire.Number = 1

	rangeKVs   protowire.Number = 2
	rangeMore  protowire.Number = 3
	rangeCount protowire.Number = 4

	streamRangeResponse protowire.Number = 1

	putPrevKV protowire.Number = 2

	deleteDeleted protowire.Number = 2
	deletePrevKVs protowire.Number = 3

	txnSucceeded protowire.Number = 2
	txnResponses protowire.Number = 3

	opRange  protowire.Number = 1
	opPut    protowire.Number = 2
	opDelete protowire.Number = 3
	opTxn    protowire.Number = 4
)

// rangeShape is what the key-values of a range look like.
func rangeShape(res *mvcc.RangeResult) kvShape {
	switch {
	case !res.KeysOnly:
		return kvWhole
	case res.KeysLease:
		return kvKeysLease
	default:
		return kvKeys
	}
}

// encodeRange encodes a RangeResponse. rows, here and below, is where to read what
// has left memory; without it that is errEvicted.
func encodeRange(h wireHeader, res *mvcc.RangeResult, rows *coldRows) (*reply, error) {
	size := -1
	if len(res.Versions) <= encodeSizePassKeysMax {
		size = sizeRange(h, res)
	}
	e := newListEncoder(size, rows)
	e.reply.kvs, e.reply.count = uint32(len(res.Versions)), uint32(res.Count)
	e.rangeFields(h, res)
	return e.finish()
}

func sizeRange(h wireHeader, res *mvcc.RangeResult) int {
	n := sizeBytesField(respHeader, h.size()) +
		sizeKeyValues(rangeKVs, res.Versions, rangeShape(res)) +
		sizeUintField(rangeCount, uint64(res.Count))
	if res.More {
		n += sizeUintField(rangeMore, 1)
	}
	return n
}

func (e *encoder) rangeFields(h wireHeader, res *mvcc.RangeResult) {
	e.header(respHeader, h)
	e.keyValues(rangeKVs, res.Versions, rangeShape(res))
	e.boolField(rangeMore, res.More)
	e.uintField(rangeCount, uint64(res.Count))
}

// encodeStreamChunk encodes one RangeStreamResponse. Only the last chunk carries
// header, more and count.
func encodeStreamChunk(h wireHeader, page *mvcc.Page, rows *coldRows) (*reply, error) {
	res, shape := &page.RangeResult, rangeShape(&page.RangeResult)
	inner := sizeKeyValues(rangeKVs, res.Versions, shape)
	if page.Last {
		inner = sizeRange(h, res)
	}
	e := newListEncoder(sizeBytesField(streamRangeResponse, inner), rows)
	e.openField(streamRangeResponse, inner)
	if page.Last {
		e.rangeFields(h, res)
		return e.finish()
	}
	e.keyValues(rangeKVs, res.Versions, shape)
	return e.finish()
}

// encodePut encodes a PutResponse.
func encodePut(h wireHeader, res *mvcc.PutResult, rows *coldRows) (*reply, error) {
	e := newEncoder(sizePut(h, res), rows)
	e.putFields(h, res)
	return e.finish()
}

func sizePut(h wireHeader, res *mvcc.PutResult) int {
	n := sizeBytesField(respHeader, h.size())
	if res.Prev != nil {
		n += sizeBytesField(putPrevKV, kvWhole.size(res.Prev))
	}
	return n
}

func (e *encoder) putFields(h wireHeader, res *mvcc.PutResult) {
	e.header(respHeader, h)
	if res.Prev != nil {
		e.keyValue(putPrevKV, res.Prev, kvWhole)
	}
}

// encodeDelete encodes a DeleteRangeResponse.
func encodeDelete(h wireHeader, res *mvcc.DeleteResult, rows *coldRows) (*reply, error) {
	e := newEncoder(sizeDelete(h, res), rows)
	e.reply.count = uint32(res.Deleted)
	e.deleteFields(h, res)
	return e.finish()
}

func sizeDelete(h wireHeader, res *mvcc.DeleteResult) int {
	return sizeBytesField(respHeader, h.size()) +
		sizeUintField(deleteDeleted, uint64(res.Deleted)) +
		sizeKeyValues(deletePrevKVs, res.Prev, kvWhole)
}

func (e *encoder) deleteFields(h wireHeader, res *mvcc.DeleteResult) {
	e.header(respHeader, h)
	e.uintField(deleteDeleted, uint64(res.Deleted))
	e.keyValues(deletePrevKVs, res.Prev, kvWhole)
}

// encodeTxn encodes a TxnResponse.
func encodeTxn(h wireHeader, res *mvcc.TxnResult, rows *coldRows) (*reply, error) {
	e := newEncoder(sizeTxn(h, res), rows)
	e.txnFields(h, res)
	return e.finish()
}

func sizeTxn(h wireHeader, res *mvcc.TxnResult) int {
	n := sizeBytesField(respHeader, h.size())
	if res.Succeeded {
		n += sizeUintField(txnSucceeded, 1)
	}
	for i := range res.Ops {
		num, size := opField(&res.Ops[i])
		n += sizeBytesField(txnResponses, sizeBytesField(num, size))
	}
	return n
}

func (e *encoder) txnFields(h wireHeader, res *mvcc.TxnResult) {
	e.header(respHeader, h)
	e.boolField(txnSucceeded, res.Succeeded)
	for i := range res.Ops {
		e.op(&res.Ops[i])
	}
}

// opField is the field of a ResponseOp that is set, and the size of its message.
func opField(op *mvcc.OpResult) (protowire.Number, int) {
	h := wireHeader{rev: op.Revision}
	switch {
	case op.Range != nil:
		return opRange, sizeRange(h, op.Range)
	case op.Put != nil:
		return opPut, sizePut(h, op.Put)
	case op.Delete != nil:
		return opDelete, sizeDelete(h, op.Delete)
	case op.Txn != nil:
		return opTxn, sizeTxn(h, op.Txn)
	}
	panic("etcdapi: txn result with an empty operation")
}

// op writes a ResponseOp.
func (e *encoder) op(op *mvcc.OpResult) {
	num, n := opField(op)
	e.openField(txnResponses, sizeBytesField(num, n))
	e.openField(num, n)
	h := wireHeader{rev: op.Revision}
	switch num {
	case opRange:
		e.rangeFields(h, op.Range)
	case opPut:
		e.putFields(h, op.Put)
	case opDelete:
		e.deleteFields(h, op.Delete)
	case opTxn:
		e.txnFields(h, op.Txn)
	}
}
