module github.com/renthook/renthook/tools/mutants

go 1.26.8
