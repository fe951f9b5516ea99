// Package request reads the requests of the KV service from protobuf without reflection and without copying: byte fields alias the input.
//
// The decoders know every field of the requests and nothing else. What a client of another version could send beside that (an unknown
// field, another wire type, a message field given twice, which proto merges, a txn inside a txn) makes them answer false, and
// proto.Unmarshal decides; it resets what they have left in the message.
//
// Everything here is a function of its arguments. That it reads what proto reads is shown where it is used: TestDecodeEqualsProto and
// FuzzDecode of etcdapi, TestDecoder of mvcc.
package request
