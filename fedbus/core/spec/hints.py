"""What people who come from other frameworks write in a job spec, and what it is here: hints by meaning.

The words are those of Flower, NVIDIA FLARE, APPFL, OpenFL and of the papers. Keys are compared without case, '_' and
'-'. A hint is a path of a key here; where there is no such key, a sentence says what there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

_TASK = "is the task's own: put it into task_config, where the task knows such a key"
_SITE = "is a setting of each site, see `fedbus site --help`"
_ADDRESS = "is a setting, not part of a job: --broker-url or FEDBUS_BROKER_URL"

_BY_MEANING = {
    "local.learning_rate": "lr learning_rate local_lr client_lr client_learning_rate eta local_learning_rate",
    "local.batch_size": "batch batch_size bs train_batch_size local_batch_size mini_batch_size",
    "local.epochs": "epoch num_epochs n_epochs local_epochs epochs_per_round num_local_epochs aggregation_epochs",
    "local.steps": "local_steps num_steps num_local_steps steps_per_round local_iterations iterations max_steps"
    " num_batches_per_round",
    "local.proximal_mu": "mu prox_mu proximal_term fedprox_mu fedproxloss_mu",
    "local.autocast_bf16": "amp bf16 mixed_precision autocast fp16_training",
    "local.evaluate": "eval evaluation do_validation validate cross_validation fraction_evaluate fraction_eval",
    "min_sites": "min_clients min_available_clients min_fit_clients min_evaluate_clients min_num_clients min_nodes"
    " min_available_nodes min_train_nodes min_evaluate_nodes min_collaborators min_workers min_participants min_parties"
    " num_clients n_clients num_sites num_nodes num_collaborators num_workers num_parties num_supernodes",
    "min_contributors": "min_responses min_updates min_responses_required minimum_reporting",
    "sites": "clients participants workers nodes collaborators parties hospitals targets client_names site_names"
    " mandatory_clients required_sites deploy_map cols",
    "stop.versions": "rounds num_rounds n_rounds max_rounds total_rounds num_server_rounds server_rounds"
    " rounds_to_train comm_rounds communication_rounds num_global_epochs global_epochs global_rounds num_versions",
    "stop.updates": "num_updates max_updates total_updates",
    "stop.wall_time_s": "timeout time_limit max_time wall_time max_runtime duration max_seconds job_timeout",
    "stop.patience": "early_stopping early_stop",
    "stop.target": "target_accuracy target_metric goal",
    "strategy": "aggregator aggregation aggregation_method aggregation_type algorithm scheduler workflow",
    "strategy.k": "fraction_fit fraction_train client_fraction participation participation_rate sample_fraction"
    " clients_per_round num_clients_per_round num_sampled_clients sample_size sampling_ratio",
    "strategy.buffer": "buffer_size buffer_k num_aggregations straggler_buffer concurrency_goal aggregation_goal",
    "strategy.deadline_s": "round_timeout deadline train_timeout straggler_timeout straggler_cutoff_time",
    "strategy.mixing": "mixing_rate fedasync_alpha",
    "staleness": "staleness_fn staleness_function staleness_weight staleness_func staleness_fn_kwargs",
    "max_staleness": "staleness_limit max_delay staleness_bound",
    "server_optimizer": "server_opt fedopt server_optim",
    "server_optimizer.lr": "server_lr server_learning_rate global_lr global_learning_rate server_step eta_g eta_server",
    "server_optimizer.momentum": "server_momentum server_momentum_param_1 momentum_param",
    "initial_params": "initial_parameters init_params initial_weights pretrained checkpoint init_state_path"
    " source_ckpt_filename initial_model weights_path",
    "continues": "resume resume_from continue_from parent_job base_job warm_start start_from init_from previous_job",
    "task": "model model_name app learner executor client_app trainer recipe",
    "task_config": "model_config model_params model_kwargs dataset dataset_config data_config train_args config"
    " model_configs dataset_kwargs trainer_args params arguments args",
    "name": "job_name experiment experiment_name project run_name job_id run_id title",
    "seed": "random_seed rng_seed manual_seed random_state",
    "codec": "compression compressor quantization compress enable_compression lossy_compressor",
    "keep": "personalization personalized_layers local_layers fedbn exclude_vars",
    "travel": "shared_layers trainable_layers include_vars global_layers aggregated_layers",
    "frozen": "freeze frozen_layers freeze_layers fixed_layers",
    "robust": "byzantine defense robust_aggregation krum num_malicious num_malicious_clients",
    "clip_to_own_median": "clip clipping clip_norm clipping_norm max_norm clip_value gradient_clipping max_grad_norm",
}
_SENTENCES = {
    _TASK: "weight_decay optimizer optim optimizer_args optim_args dropout nesterov loss criterion loss_fn"
    " metrics betas lr_scheduler scheduler_config",
    "is the task's own at the sites (task_config); the aggregator's is server_optimizer.momentum": "momentum",
    _SITE: "device gpu gpus num_gpus use_cuda cuda data data_path data_dir dataset_path threads slowdown"
    " client_resources min_batch_size state_dir resources resource_spec",
    _ADDRESS: "server server_address address host port broker broker_url url server_uri superlink grpc",
    "is decided by the strategy: an asynchronous job has no turns; see strategy": "mode synchronous asynchronous async"
    " sync",
    "is no part of a job: fedbus adds no noise; see clip_to_own_median and min_contributors": "dp differential_privacy"
    " noise noise_multiplier epsilon use_dp privacy secure_aggregation secagg",
}
_IN_SECTION = {
    "server_optimizer": {"server_optimizer.lr": "learning_rate eta step_size step alpha"},
    "staleness": {"staleness.a": "alpha power exponent rate", "staleness.b": "beta threshold"},
    "strategy": {"strategy.k": "clients num_clients min_clients sites num_sites", "strategy.deadline_s": "timeout"},
    "stop": {"stop.wall_time_s": "time seconds hours minutes", "stop.target": "metric accuracy loss auc at_least"},
    "robust": {"robust.f": "num_malicious num_byzantine malicious byzantine num_malicious_clients"},
    "codec": {"codec.up": "uplink upload client", "codec.down": "downlink download server"},
}
_KINDS = {
    "strategy.kind": {
        "sync": "fedavg avg average fedsgd syncfedavg synchronous scatterandgather weightedaverage serversync"
        " serverfedavg",
        "buffered": "fedbuff fedbuf buffer buffasync serverfedbuffer",
        "calibrated": "ca2fl fedcalibrated",
        "fedasync": "async asynchronous serverfedasynchronous fedasynchronous",
        "sync, with local.proximal_mu": "fedprox prox",
        "sync, with server_optimizer: momentum": "fedavgm fedmom",
        "sync, with server_optimizer: adam": "fedadam fedopt serverfedadam",
        "sync, with server_optimizer: yogi": "fedyogi serverfedyogi",
        "sync, with keep: [batch_norm]": "fedbn",
        "auto, with server_optimizer: fadas": "fadas",
        "auto, with robust: multi_krum": "krum multikrum",
        "auto, with robust: median": "fedmedian median",
        "auto, with robust: trimmed_mean": "fedtrimmedavg trimmedmean",
    },
    "server_optimizer.kind": {
        "plain": "sgd none fedavg identity",
        "momentum": "fedavgm heavyball sgdm",
        "adam": "fedadam adamw",
        "yogi": "fedyogi",
    },
    "robust.kind": {"multi_krum": "krum multikrum", "trimmed_mean": "trimmed trimmedavg", "median": "fedmedian"},
    "staleness.kind": {"polynomial": "poly", "hinge": "hinged", "exponential": "exp", "constant": "none off"},
    "codec.up.kind": {
        "fp32": "none float32 off",
        "fp16": "half float16",
        "bf16": "bfloat16",
        "int8": "q8",
        "int4": "q4",
    },
    "codec.down": {"fp32": "none float32 off", "fp16": "half float16", "bf16": "bfloat16", "int8": "q8", "int4": "q4"},
}


def _plain(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "").replace(" ", "").replace(".", "")


def _turned(table: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType({_plain(word): target for target, words in table.items() for word in words.split()})


PATHS = _turned(_BY_MEANING)
SENTENCES = _turned(_SENTENCES)
SECTIONS = MappingProxyType({section: _turned(table) for section, table in _IN_SECTION.items()})
KINDS = MappingProxyType({path: _turned(table) for path, table in _KINDS.items()})
_NOTES = MappingProxyType(
    {
        "stop.versions": "a version of the model is what others call a round",
        "strategy.k": "a number of sites, of kind: sync",
        "strategy.deadline_s": "of kind: sync",
        "strategy.mixing": "of kind: fedasync",
        "min_sites": "the job starts with so many",
        "sites": "a list of names; leave it out to ask every site",
        "clip_to_own_median": "a multiple of a site's own usual length, and on by default",
    }
)


def of_key(key: str, parents: Iterable[str]) -> str | None:
    """Say what a key below `parents` that nobody knows there is called here; None when there is no hint by meaning."""
    word, section = _plain(key), ".".join(parents)
    here = SECTIONS.get(section, {}).get(word)
    if here is None and word in SENTENCES:
        return f"unknown key: it {SENTENCES[word]}"
    path = here or PATHS.get(word)
    if path is None or path == section:
        return None
    note = _NOTES.get(path)
    return f"unknown key; here it is {path}" + (f": {note}" if note else "")


def of_kind(path: str, value: object) -> str:
    """Say which kind here is what others call by this name; empty when there is no hint."""
    kind = KINDS.get(path, {}).get(_plain(value)) if isinstance(value, str) else None
    return f"; what you mean is here {kind}" if kind else ""
