# The same steps as CI. `just` lists them.

# Start a cluster with the example of the README.
up *flags:
    cargo run --release -- up -f examples/nginx.yaml {{flags}}

# Install what the tests need and run all of them.
test:
    ./test.sh

# Replay recordings of a real Kubernetes, a folder as e2e/oracle.sh describes it.
oracle folder:
    cargo build -p petset
    e2e/oracle.sh {{folder}}

# Writes per second of the store, with and without a shared flush.
bench-store seconds="3":
    cargo bench -p store -- {{seconds}}
