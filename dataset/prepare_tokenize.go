package dataset

import (
	"context"
	"iter"
	"sync"
)

// encoded is a document as tokens.
type encoded struct {
	doc   *document
	ids   []int32 // BOS and EOS included
	bytes int64   // of text
	err   error
}

// tokenize encodes docs on a number of goroutines and gives the results to emit in the order of docs, on the caller's
// goroutine. At most a few documents per worker are in memory. It returns after all its goroutines have ended.
func tokenize(ctx context.Context, docs []document, tok Tokenizer, workers int, emit func(encoded) error) error {
	ctx, cancel := context.WithCancel(ctx)
	type job struct {
		doc  *document
		done chan encoded // takes one result
	}
	jobs, order := make(chan job), make(chan job, 2*workers)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		defer close(jobs)
		defer close(order)
		for i := range docs {
			j := job{&docs[i], make(chan encoded, 1)}
			for _, to := range []chan job{order, jobs} {
				select {
				case to <- j:
				case <-ctx.Done():
					return
				}
			}
		}
	})
	for range workers {
		wg.Go(func() {
			for j := range jobs {
				j.done <- encodeDocument(j.doc, tok)
			}
		})
	}
	for j := range order {
		select {
		case e := <-j.done:
			if e.err != nil {
				return e.err
			}
			if err := emit(e); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

func encodeDocument(d *document, tok Tokenizer) encoded {
	text, err := d.text()
	if err != nil {
		return encoded{doc: d, err: err}
	}
	ids := make([]int32, 0, len(text)/3+2)
	if bos := tok.BOS(); bos >= 0 {
		ids = append(ids, bos)
	}
	ids = tok.Encode(ids, text)
	if eos := tok.EOS(); eos >= 0 {
		ids = append(ids, eos)
	}
	return encoded{doc: d, ids: ids, bytes: int64(len(text))}
}

// trainingTexts reads the documents that are not set apart, one at a time.
func trainingTexts(docs []document) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for i := range docs {
			if docs[i].validation {
				continue
			}
			if text, err := docs[i].text(); !yield(text, err) || err != nil {
				return
			}
		}
	}
}
