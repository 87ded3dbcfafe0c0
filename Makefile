# The one way in: `make help` says what there is. Settings are environment variables: `PORT_BASE=4000 make up`.

.DEFAULT_GOAL := help
# `ready` is the part of `setup` that the stack needs.
.PHONY: help ready demo setup up down reset status logs dlq rebuild env run start stop restart topics tail audit test postman faults fuzz check fmt contracts contracts-release openapi
MAKEFLAGS += --no-print-directory

PYTHON_BIN := .venv/bin
# In place of the shell, so that it gets the signals that make gets.
EMBEDDED := exec $(PYTHON_BIN)/python -m embedded

help: ## This list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Run
ready:
	@infra/local/setup.sh stack

demo: ready ## Everything: set up, start, and tell the story of one sale on the screen
	@$(EMBEDDED) up
	@$(PYTHON_BIN)/python -m embedded.demo

setup: ## Once: packages, Kafka's jars, git hooks. The other targets do it when it is needed
	@infra/local/setup.sh

up: ready ## Start the stack, or what of it is missing. PORT_BASE=3000 moves all its ports
	@$(EMBEDDED) up

down: ready ## Stop everything; what is stored stays
	@$(EMBEDDED) down

reset: ready ## Stop everything and delete what is stored: databases, messages, secrets, logs
	@$(EMBEDDED) reset

##@ Look
status: ready ## Each process: pid, port, memory, ready or why not
	@$(EMBEDDED) status

logs: ready ## Follow the logs of a service or server: make logs S=inventory [N=50]
	@$(EMBEDDED) logs --of "$(S)" --lines "$(N)"

topics: ready ## Kafka's topics: partitions, messages, and each group's lag
	@$(EMBEDDED) topics

tail: ready ## Follow a topic's messages: make tail T=payments.orders [FROM=start]
	@$(EMBEDDED) tail --topic "$(T)" --from "$(FROM)"

audit: ready ## Do money, seats and messages agree? make audit [GRACE=30] [DAYS=30] [ALL=1]
	@set -a; eval "$$($(PYTHON_BIN)/python -m embedded env)"; exec $(PYTHON_BIN)/python -m audit \
		$(if $(GRACE),--grace $(GRACE)) $(if $(DAYS),--days $(DAYS)) $(if $(ALL),--all)

dlq: ready ## Dead letters: make dlq [T=topic [LETTER=0:12 | REPLAY=all | DISCARD=0:12 REASON="why"] [ALL=1]]
	@$(EMBEDDED) module libs.messaging.dlq --letter="$$LETTER" --replay="$$REPLAY" --discard="$$DISCARD" \
		--reason="$$REASON" $(if $(ALL),--all) -- "$$T"

rebuild: ready ## Throw a projection away and build it from its topics: make rebuild P=inventory.catalog
	@$(EMBEDDED) rebuild --projection "$(P)" --forget "$(FORGET)"

env: ## Addresses and keys of the running stack, for your shell: eval "`make env`"
	@infra/local/setup.sh stack >&2
	@$(EMBEDDED) env

##@ Containers
.PHONY: engine images-offline certs rollout e2e
engine: ## On Debian, as root: Docker Engine with compose, running. For machines that have none
	@infra/containers/engine.sh

images-offline: ## Stand-ins for the public images, from packages. For machines that reach no registry
	@infra/containers/offline/build.sh

certs: ready ## A certificate for localhost in certs/, and random secrets in .env. Overwrites nothing
	@$(PYTHON_BIN)/python -m infra.containers.certs

rollout: ## Replace containers without a refused request: make rollout S="inventory-app inventory-worker"
	@infra/containers/rollout.sh $(S)

e2e: setup ## The containers end to end, as a project of their own beside yours: make e2e [ARGS="-k scale"]
	@E2E=required $(PYTHON_BIN)/pytest tests/e2e $(ARGS)

##@ Work on it
run: ready ## One service in the foreground, with reload, the rest as they are: make run S=payments
	@$(EMBEDDED) run --service "$(S)"

start: ready ## Start processes that were stopped: make start P=kafka
	@$(EMBEDDED) start --processes "$(P)"

stop: ready ## Stop processes, to see what happens without: make stop P="kafka redis"
	@$(EMBEDDED) stop --processes "$(P)"

restart: ready ## Stop processes and start them again: make restart P=catalog-worker
	@$(EMBEDDED) restart --processes "$(P)"

contracts: setup ## Generate structs, the AsyncAPI document and the page from the contracts
	@$(PYTHON_BIN)/python -m contracts.generate

contracts-release: setup ## Make the contracts as they are the release that changes are held against
	@$(PYTHON_BIN)/python -m contracts.release $(if $(BREAKING),--breaking)

postman: ready ## Every call of the API against the running stack, by newman: make postman [URL=https://localhost]
	@exec api/run.sh $(URL)

# Its own stack on free ports, beside one that runs.
faults: setup ## Everything dies under load, nothing is lost: make faults [SECONDS=300] [SEED=7] [ALL=1]
	@$(EMBEDDED) classes
	@SECONDS="$(SECONDS)" SEED="$(SEED)" ALL="$(ALL)" BUYERS="$(BUYERS)" \
		KAFKA_AWAY_SECONDS="$(KAFKA_AWAY_SECONDS)" exec $(PYTHON_BIN)/python -m tests.faults

fuzz: setup ## Made-up requests after the OpenAPI documents, at a stack of their own: make fuzz [CASES=20000] [SEED=7] [SHORT=1]
	@$(EMBEDDED) classes
	@CASES="$(CASES)" SEED="$(SEED)" SHORT="$(SHORT)" exec $(PYTHON_BIN)/python -m tests.fuzz

openapi: setup ## Write the merged OpenAPI document and the page of error codes, from the code
	@$(PYTHON_BIN)/python -m embedded.openapi

fmt: setup ## Format the code and put right what can be put right by itself
	@$(PYTHON_BIN)/ruff format
	@$(PYTHON_BIN)/ruff check --fix

check: setup ## Format, lint, types, import rules, contracts, lock file, known vulnerabilities
	@infra/local/check.sh

# A file's tests stay together: many share a server (xdist's groups are without effect under this pytest).
# The containers come last and alone; without an engine this says so.
test: setup ## All tests, in parallel: make test [ARGS="services/inventory -k hold"]
	@$(EMBEDDED) classes
	@$(PYTHON_BIN)/pytest -n 4 --dist loadfile --ignore tests/e2e $(ARGS)
	@$(if $(ARGS),,$(PYTHON_BIN)/pytest -rfE tests/e2e)
