package config

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// document parses text to the node of its one document, nil after a fault.
func (l *loader) document(text []byte) *yaml.Node {
	top := origin{line: 1, column: 1}
	if len(text) > MaxBytes {
		l.fault("", top, "the job file is too long", fmt.Sprintf("more than %d bytes", MaxBytes), "")
		return nil
	}
	if at, ok := binary(text); ok {
		line := 1 + bytes.Count(text[:at], []byte("\n"))
		column := at - bytes.LastIndexByte(text[:at], '\n')
		o := origin{line: line, column: column}
		l.fault("", o, "the job file is not text", fmt.Sprintf("byte %#02x", text[at]), "YAML in UTF-8")
		return nil
	}
	n, err := parseYAML(text)
	if err != nil {
		if err.line > 0 {
			top = origin{line: err.line, column: err.column}
		}
		l.fault("", top, err.message, "", "one YAML document")
		return nil
	}
	if n.Kind != yaml.MappingNode {
		l.fault("", l.originOf(n), "the job file is not a mapping", describe(n), "sections such as job: and model:")
		return nil
	}
	return n
}

// binary finds the first byte that no YAML text holds.
func binary(text []byte) (at int, found bool) {
	for at < len(text) {
		r, n := utf8.DecodeRune(text[at:])
		if r == utf8.RuneError && n == 1 || r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0x7f {
			return at, true
		}
		at += n
	}
	return 0, false
}

type yamlError struct {
	line, column int
	message      string
}

// parseYAML is the root node of text.
func parseYAML(text []byte) (*yaml.Node, *yamlError) {
	var doc yaml.Node
	err := yaml.Load(text, &doc)
	if err == nil {
		return doc.Content[0], nil
	}
	var at *yaml.LoadError
	if !errors.As(err, &at) {
		return nil, &yamlError{message: "not YAML: " + err.Error()}
	}
	if at.Stage == yaml.ConstructorStage { // of a yaml.Node it fails only at the number of documents
		if doc.IsZero() {
			return nil, &yamlError{message: "there is nothing in it"}
		}
		return nil, &yamlError{message: "more than one YAML document"}
	}
	message := "not YAML: " + at.Message
	if at.ContextMsg != "" {
		message += " " + at.ContextMsg
	}
	return nil, &yamlError{at.Mark.Line, at.Mark.Column, message}
}
