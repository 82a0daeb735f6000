package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/herdtrain/herd/dataset"
	"github.com/herdtrain/herd/trainer/config"
)

// jobCheck looks at a job file and at the files that it names.
func jobCheck(file string) check {
	return check{file, func(context.Context) []finding {
		job, err := config.Load(file, nil)
		if err != nil {
			return failure("job", err, "")
		}
		found := judge("job", true, "", fmt.Sprintf("%s: %s, %d steps", file, job.Job.Name, job.Train.Steps), "")
		digest, tokenizer := checkTokenizer(job)
		found = append(found, tokenizer...)
		found = append(found, checkData(job, digest)...)
		found = append(found, checkOutput(job.Job.Output)...)
		return append(found, checkPlan(job)...)
	}}
}

// checkTokenizer also returns the tokenizer's digest, "" if there is none.
func checkTokenizer(job *config.Job) (string, []finding) {
	const prepare = "make it with 'trainer data prepare --tokenizer-path'"
	t, err := dataset.OpenTokenizer(job.Tokenizer.Kind, job.Tokenizer.Path)
	if err != nil {
		return "", failure("tokenizer", err, prepare)
	}
	found := fmt.Sprintf("%s %s: %d ids, the model has %d",
		job.Tokenizer.Kind, job.Tokenizer.Path, t.Vocab(), job.Model.Vocab)
	return t.Digest(), judge("tokenizer", t.Vocab() <= job.Model.Vocab, statusFailed, found,
		"train a smaller vocabulary, or set model.vocab")
}

// checkData opens the datasets as a run would.
func checkData(job *config.Job, tokenizer string) []finding {
	o := dataset.Options{
		Length: job.Data.SequenceLength, GlobalBatch: job.Train.GlobalBatch, Seed: job.Job.Seed,
		Vocab: job.Model.Vocab, TokenizerDigest: tokenizer, DocumentMask: job.Data.DocumentMask,
	}
	for _, s := range job.Data.Train {
		o.Sources = append(o.Sources, dataset.Source{Path: s.Path, Weight: s.Weight})
	}
	found := checkStream("data", o)
	if v := job.Data.Validation; v != nil {
		o.Sources = []dataset.Source{{Path: v.Path, Weight: 1}}
		found = append(found, checkStream("validation", o)...)
	}
	return found
}

func checkStream(name string, o dataset.Options) []finding {
	const prepare = "prepare it with 'trainer data prepare'"
	s, err := dataset.Open(o)
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		return failure(name, err, prepare)
	}
	var tokens int64
	for _, source := range o.Sources {
		m, err := dataset.ReadManifest(source.Path)
		if err != nil {
			return failure(name, err, prepare)
		}
		tokens += m.Tokens
	}
	return judge(name, true, "", fmt.Sprintf("%d datasets, %d tokens", len(o.Sources), tokens), "")
}

// checkOutput writes a temporary file where the run's output will be, in the nearest directory that exists.
func checkOutput(output string) []finding {
	dir := output
	for {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			return failure("output", fmt.Errorf("%s is not a directory", dir), "set job.output to a directory")
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err == nil {
		err = errors.Join(f.Close(), os.Remove(f.Name()))
	}
	if err != nil {
		return failure("output", err, "make the directory writable, or set job.output")
	}
	return judge("output", true, "", output+": can be written", "")
}

// checkPlan compares the memory that the job plans with what is free.
func checkPlan(job *config.Job) []finding {
	arena, err := memoryPlan(job)
	if err != nil {
		return failure("memory plan", err, "")
	}
	plan := arena.Bytes()
	_, available, limit, err := memory()
	if err != nil {
		return judge("memory plan", true, "", sizeText(plan), "")
	}
	room := min(available, limit)
	return judge("memory plan", plan <= room, statusFailed,
		fmt.Sprintf("%s of %s available", sizeText(plan), sizeText(room)),
		"lower train.micro_batch, or choose a smaller model")
}
