package script

import "time"

const (
	callMax       = time.Minute            // one answer
	startMax      = 2 * time.Minute        // until a server says that it is ready
	stopMax       = time.Minute            // after SIGTERM
	outputLines   = 40                     // of a server's log that an error shows
	eventsMax     = 1 << 20                // of one watch-recv with until
	bytesMax      = 100                    // longer values are shown by length and checksum
	jsonLineMax   = 2000                   // longer lines are shown by length and checksum
	retryInterval = 100 * time.Millisecond // between two attempts of a patient call
	messageMax    = 1<<31 - 1              // no limit on the client's side
)
