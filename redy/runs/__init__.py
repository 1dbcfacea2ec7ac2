"""Many pieces of work: workers, clusters, the results store, jobs files, and resuming. Slices and batches use it."""
