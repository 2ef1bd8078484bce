# ruff: noqa: E501
"""Tests that take many seconds beside quicker ones of the same subject. `HJCONTROL_SLOW=1` runs them too.

One name per line: the file, the test, and what its parameters begin with, if only some are slow.
"""

import os

SLOW = [
    "",
    "analysis/test_deep_robustness.py::test_a_value_is_held",
    "analysis/test_deep_robustness.py::test_bounds_do_not_flinch",
    "analysis/test_deep_robustness.py::test_kinks_are_said[tanh",
    "analysis/test_deep_robustness.py::test_no_attack_succeeds_within_the_certified_radius[tanh",
    "analysis/test_deep_robustness.py::test_outputs_and_slopes_over_a_ball_are_enclosed[mixed",
    "analysis/test_deep_robustness.py::test_outputs_and_slopes_over_a_ball_are_enclosed[relu-inf",
    "cli/test_crosscheck.py::test_a_reader_who_leaves",
    "cli/test_crosscheck.py::test_a_real_limit_on_file_size",
    "cli/test_fit_convex.py::test_regression_models_on_a_file[dc-extra4",
    "cli/test_main_job.py::test_direct_and_newton_meet_and_the_witness_agrees",
    "cli/test_pde.py::test_without_a_file_it_fits_the_diabetes_data_and_shows_a_slice",
    "comparison/test_solutions.py::test_other_minima_are_told_apart_without_being_refuted",
    "comparison/test_solutions.py::test_scrambled_solution_is_the_same_one",
    "comparison/test_solutions.py::test_too_few_and_foreign_solutions",
    "control/test_projected_stationarity.py::test_stationarity_is_that_of_the_summed_hamiltonians[by leaf",
    "devices/test_devices.py::test_four_devices_find_what_one_finds[Auto",
    "devices/test_devices.py::test_two_processes_find_what_one_finds",
    "estimators/test_estimators.py::test_attributions_add_up_and_far_samples_are_told[0-LSEClassifier",
    "estimators/test_estimators.py::test_attributions_add_up_and_far_samples_are_told[2-LSERegressor",
    "estimators/test_estimators.py::test_attributions_add_up_and_far_samples_are_told[3-MaxAffineRegressor",
    "estimators/test_estimators.py::test_attributions_add_up_and_far_samples_are_told[4-ControlledNetClassifier",
    "estimators/test_estimators.py::test_predictions_hold_within_the_certified_radius[0-LSEClassifier",
    "estimators/test_estimators.py::test_predictions_hold_within_the_certified_radius[2-LSERegressor",
    "estimators/test_estimators.py::test_predictions_hold_within_the_certified_radius[3-MaxAffineRegressor",
    "estimators/test_estimators.py::test_predictions_hold_within_the_certified_radius[4-ControlledNetClassifier",
    "estimators/test_estimators.py::test_predictions_hold_within_the_certified_radius[5-ControlledNetRegressor",
    "estimators/test_estimators.py::test_the_network_is_the_estimator[0-LSEClassifier",
    "estimators/test_estimators.py::test_the_network_is_the_estimator[2-LSERegressor",
    "estimators/test_estimators.py::test_the_network_is_the_estimator[3-MaxAffineRegressor",
    "estimators/test_estimators.py::test_the_network_is_the_estimator[4-ControlledNetClassifier",
    "hamilton_jacobi/test_grid_gradient.py::test_gradient_in_data_viscosity_time_and_hamiltonian[weno5 2-D",
    "layers/test_program_layer.py::test_a_layer_of_ours_stated_by_the_user",
    "networks/test_architectures.py::test_the_costate_is_verified_at_random_weights_and_after_training[flow",
    "networks/test_architectures.py::test_the_costate_is_verified_at_random_weights_and_after_training[transformer",
    "networks/test_architectures.py::test_the_pairing_of_costate_and_tangent_is_conserved[flow",
    "networks/test_encoder.py::test_single_precision_is_verified_with_its_own_tolerance",
    "networks/test_encoder.py::test_the_backward_pass_is_the_costate_and_a_wrong_rule_is_named",
    "networks/test_flow.py::test_a_solve_that_fails_says_where_and_why",
    "networks/test_flow.py::test_newton_on_a_flow",
    "networks/test_recurrent.py::test_newton_and_the_direct_method_solve_a_recurrence",
    "networks/test_transformer.py::test_a_masked_post_norm_transformer_is_verified",
    "reproduction/test_claims.py::test_the_claim_comes_out_as_recorded_and_its_control_turns[scaling-trained",
    "reproduction/test_faulty.py::test_every_tool_of_every_claim",
    "solvers/test_checkpoint.py::test_a_chain_of_interruptions_changes_nothing[newton",
    "solvers/test_checkpoint.py::test_killed_at_random_moments",
    "solvers/test_collocation.py::test_multipliers_tend_to_the_costates_at_the_scheme_s_order[legendre-4",
    "solvers/test_convex_crosscheck.py::test_convex_regression_planes",
    "solvers/test_meshes.py::test_a_coarse_collocation_says_so",
    "solvers/test_newton.py::test_large_blocks_fall_back_to_factors_and_newton_still_converges",
    "solvers/test_newton.py::test_reaches_stationarity[gauss_newton",
    "solvers/test_path_constraints.py::test_every_hidden_state_in_a_ball",
    "solvers/test_published_problems.py::test_the_published_value_and_the_program_by_hand[Bryson-Denham, x <= 1/6",
    "solvers/test_published_problems.py::test_the_published_value_and_the_program_by_hand[Egerstedt, relaxed, x2 >= .4",
    "solvers/test_published_problems.py::test_the_published_value_and_the_program_by_hand[Lotka-Volterra fishing",
    "solvers/test_published_problems.py::test_the_published_value_and_the_program_by_hand[Rayleigh]",
    "solvers/test_published_problems.py::test_the_published_value_and_the_program_by_hand[Rayleigh, |u| <= 1",
    "solvers/test_published_problems.py::test_the_published_value_and_the_program_by_hand[Van der Pol, -.3 <= u <= 1",
    "solvers/test_published_problems.py::test_the_published_value_and_the_program_by_hand[Van der Pol, x >= -1/4",
    "solvers/test_published_problems.py::test_the_published_value_and_the_program_by_hand[Van der Pol, |u| <= 1",
    "solvers/test_published_problems.py::test_the_published_value_and_the_program_by_hand[batch reactor",
    "solvers/test_published_problems.py::test_the_published_value_and_the_program_by_hand[brachistochrone",
    "solvers/test_published_problems.py::test_the_published_value_and_the_program_by_hand[cart-pole swing-up",
    "solvers/test_published_problems.py::test_the_published_value_and_the_program_by_hand[catalyst mixing",
    "solvers/test_published_problems.py::test_the_published_value_and_the_program_by_hand[double integrator, speed <= 1.2",
    "solvers/test_published_problems.py::test_the_published_value_and_the_program_by_hand[hanging chain of length 4",
    "solvers/test_published_problems.py::test_the_published_value_and_the_program_by_hand[harmonic oscillator to rest",
    "solvers/test_published_problems.py::test_the_published_value_and_the_program_by_hand[moon lander, free time",
    "solvers/test_published_problems.py::test_the_published_value_and_the_program_by_hand[robot arm, minimum time",
    "solvers/test_running.py::test_conjugate_gradients_agree_with_the_decomposition",
    "solvers/test_running.py::test_gradient_runs_too_and_minibatches_take_their_key",
    "solvers/test_scale.py::test_a_multiple_of_the_cost_takes_the_same_steps[msa",
    "solvers/test_scale.py::test_a_multiple_of_the_cost_takes_the_same_steps[newton at once",
    "solvers/test_scale.py::test_a_multiple_of_the_cost_takes_the_same_steps[newton, bounds",
    "solvers/test_shooting.py::test_a_flow_tends_to_the_continuous_problem",
    "verification/test_cases_foreign.py::test_differential_equations[35-backsolve",
    "verification/test_cases_foreign.py::test_differential_equations[36-",
    "verification/test_cases_foreign.py::test_differential_equations[37",
    "verification/test_flows.py::test_a_sign_error_does_not_shrink_and_is_refuted",
    "verification/test_flows.py::test_adaptive_steps_shrink_with_the_tolerance",
    "verification/test_flows.py::test_digits_at_the_start_and_after_training",
    "verification/test_flows.py::test_the_ladder_tells_which_adjoint_to_use",
    "verification/test_planted_any.py::test_faults_are_found_where_they_are_and_nowhere_else[6",
    "",
][1:-1]


def asked_for() -> bool:
    """Whether the slow tests are run."""
    return os.environ.get("HJCONTROL_SLOW", "0") not in ("", "0")


def is_slow(nodeid: str) -> bool:
    """Whether a test, named from the root of the repository, is one of them."""
    return any(nodeid.removeprefix("tests/").startswith(name) for name in SLOW)
