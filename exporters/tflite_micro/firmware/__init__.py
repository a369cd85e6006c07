"""The sources a firmware engineer drops into a build: model array, contract, resolver, arena, golden test."""
