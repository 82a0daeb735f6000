package main

import (
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/run"
)

// memoryPlan is the memory of the first of the ranks that the job asks for.
func memoryPlan(job *config.Job) (*tensor.Arena, error) {
	l, err := run.Layout(job, 0)
	if err != nil {
		return nil, err
	}
	return run.Plan(job, l, 0), nil
}
