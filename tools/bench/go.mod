module github.com/renthook/renthook/tools/bench

go 1.26.8
