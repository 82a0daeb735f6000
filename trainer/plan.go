package main

import (
	"github.com/herdtrain/herd/tensor"
	"github.com/herdtrain/herd/trainer/config"
	"github.com/herdtrain/herd/trainer/run"
)

// memoryPlan is the memory of one rank, for config explain.
func memoryPlan(job *config.Job) (*tensor.Arena, error) { return run.Plan(job), nil }
