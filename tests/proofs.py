"""What proves the provisioning service, row by row of its checklist and trap by trap: tests, real clients first.

A name is a file under `tests/` and a function in it. `test_proofs.py` sees to it that each is there and is collected.
Rows are those of `moorage.coverage` [dps 22], traps those of the protocol notes [dps 23].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moorage.coverage import Area
from tests.hub_proofs import DEVICE_ROWS, DEVICE_TRAPS, SERVICE_ROWS, SERVICE_TRAPS

_NODE = "clients/test_dps_node.py"
_PYTHON = "clients/test_dps_device.py"
_RAW = "clients/test_raw_registration.py"
_TOPICS = "clients/test_raw_mqtt.py"
_GROUPS = "clients/test_x509_groups.py"
_KEYS = "clients/test_symmetric_keys.py"
_HUBS = "clients/test_several_hubs.py"
_WEBHOOK = "clients/test_custom_allocation.py"
_SERVICE = "clients/test_provisioning_service.py"
_SERVICE_NODE = "clients/test_provisioning_service_node.py"
_CLI = "clients/test_cli.py"
_CLI_DEVICE = "clients/test_cli_device.py"
_CLI_TPM = "system/test_tpm_command_line.py"
_CSR = "clients/test_certificate_requests.py"
_MQTT = "adapters/test_dps_mqtt.py"
_AMQP = "adapters/test_dps_amqp.py"
_HTTPS = "adapters/test_dps_device_http.py"
_TPM = "adapters/test_dps_device_tpm.py"
_REST = "adapters/test_dps_http.py"

DPS_ROWS: Mapping[int, Sequence[str]] = {
    1: (
        f"{_NODE}::test_a_device_registers_by_its_certificate",
        "net/test_tls.py::test_any_certificate_is_taken_and_its_chain_kept",
        "net/test_tls.py::test_an_older_tls_is_refused",
    ),
    2: (
        f"{_RAW}::test_a_device_registers_under_the_global_name_and_the_service_s_own",
        "system/test_dns_alias.py::test_a_device_registers_at_the_global_host",
    ),
    3: (f"{_PYTHON}::test_an_unknown_id_scope", f"{_HTTPS}::test_an_unknown_scope_or_id"),
    4: (
        f"{_NODE}::test_a_device_registers_by_its_key",
        f"{_TOPICS}::test_a_user_name_that_dps_cannot_read",
        f"{_MQTT}::test_user_names_of_all_clients",
    ),
    5: (
        f"{_PYTHON}::test_a_device_is_assigned_without_a_poll",
        f"{_NODE}::test_a_device_registers_by_its_certificate",
        f"{_MQTT}::test_a_kept_session_is_never_present",
    ),
    6: (
        f"{_PYTHON}::test_a_device_is_assigned_without_a_poll",
        f"{_MQTT}::test_responses_have_packet_ids_of_their_own",
        f"{_MQTT}::test_other_filters_are_refused_and_unsubscribe_is_obeyed",
    ),
    7: (f"{_PYTHON}::test_a_payload_may_come_along", f"{_MQTT}::test_register_bodies_of_all_clients"),
    8: (f"{_TOPICS}::test_a_registration_by_its_topics", f"{_MQTT}::test_register_bodies_of_all_clients"),
    9: (
        f"{_PYTHON}::test_at_the_pace_of_azure_the_device_polls",
        f"{_NODE}::test_at_the_pace_of_azure_the_device_waits_as_long_as_it_is_told",
        f"{_MQTT}::test_register_and_poll",
    ),
    10: (f"{_MQTT}::test_register_and_poll",),
    11: (
        f"{_PYTHON}::test_registration_over_websockets",
        f"{_NODE}::test_a_device_registers_by_its_certificate",
        f"{_TOPICS}::test_a_registration_by_its_topics_over_websockets",
    ),
    12: (f"{_NODE}::test_a_device_registers_by_its_key", f"{_RAW}::test_registration_over_amqp"),
    13: (f"{_NODE}::test_a_device_registers_by_its_certificate", f"{_RAW}::test_registration_over_amqp"),
    14: (f"{_NODE}::test_a_device_registers_by_its_certificate",),
    15: (f"{_NODE}::test_a_device_registers_by_its_certificate", f"{_RAW}::test_registration_over_amqp"),
    16: (f"{_RAW}::test_registration_over_amqp",),
    17: (
        f"{_NODE}::test_a_certificate_that_is_not_the_enrolled_one",
        f"{_RAW}::test_a_rejection_says_in_json_why",
        f"{_AMQP}::test_when_to_try_again_is_told_to_node_and_to_c_sharp",
    ),
    18: (
        "system/test_tpm_clients.py::test_a_device_registers_by_its_tpm_and_signs_with_the_key_of_its_hub",
        f"{_TPM}::test_a_device_proves_itself_in_sasl_and_registers",
    ),
    19: (
        f"{_NODE}::test_a_device_registers_by_its_certificate",
        f"{_RAW}::test_iot_edge_registers_over_https",
    ),
    20: (
        f"{_NODE}::test_at_the_pace_of_azure_the_device_waits_as_long_as_it_is_told",
        f"{_HTTPS}::test_bodies_and_headers_of_all_clients",
    ),
    21: (
        f"{_RAW}::test_a_device_registers_and_looks_itself_up_by_its_key",
        f"{_HTTPS}::test_looking_up_takes_the_same_proof_as_registering",
    ),
    22: (
        "system/test_tpm_clients.py::test_a_device_registers_by_its_tpm_and_signs_with_the_key_of_its_hub",
        f"{_TPM}::test_a_device_is_challenged_and_takes_its_hub_s_key_home",
    ),
    23: (
        f"{_NODE}::test_a_device_registers_by_its_key",
        f"{_KEYS}::test_an_individual_enrollment_whose_keys_the_service_made",
        "credentials/test_sas.py::test_a_signature_covers_the_resource_as_it_was_written",
        "credentials/test_sas.py::test_the_parts_come_in_any_order",
    ),
    24: (
        f"{_KEYS}::test_an_individual_enrollment_whose_keys_the_service_made",
        f"{_NODE}::test_a_device_registers_by_its_key",
    ),
    25: (
        f"{_KEYS}::test_a_group_and_the_keys_derived_from_it",
        f"{_NODE}::test_a_device_registers_by_a_key_derived_from_its_group_s",
    ),
    26: (
        f"{_KEYS}::test_a_group_and_the_keys_derived_from_it",
        f"{_CLI_DEVICE}::test_the_key_of_a_group_itself_is_refused",
    ),
    27: (
        f"{_KEYS}::test_an_individual_enrollment_whose_keys_the_service_made",
        "provisioning/test_symmetric_key.py::test_keys_that_are_not_given_are_made",
    ),
    28: (
        f"{_PYTHON}::test_the_secondary_certificate_is_as_good",
        f"{_NODE}::test_a_device_registers_by_its_certificate",
    ),
    29: (
        f"{_GROUPS}::test_a_chain_below_the_group_s_root_registers_and_connects",
        f"{_GROUPS}::test_a_leaf_alone_registers_where_the_service_holds_the_intermediate",
    ),
    30: (
        f"{_GROUPS}::test_a_group_by_reference_waits_for_the_proof_of_possession",
        f"{_GROUPS}::test_groups_are_made_by_microsoft_s_service_client",
    ),
    31: (
        "clients/test_cli_certificate.py::test_a_ca_certificate_from_upload_to_its_end",
        f"{_GROUPS}::test_a_group_by_reference_waits_for_the_proof_of_possession",
    ),
    32: (
        "system/test_tpm_clients.py::test_a_device_registers_by_its_tpm_and_signs_with_the_key_of_its_hub",
        "system/test_tpm.py::test_the_tpm_imports_the_key_and_signs_with_it",
        f"{_CLI_TPM}::test_a_device_registers_and_its_tpm_keeps_the_key_for_the_hub",
        f"{_SERVICE}::test_an_enrollment_by_tpm",
        "provisioning/test_tpm.py::test_a_tpm_that_answers_gets_the_key_by_which_its_hub_knows_it",
    ),
    33: (
        f"{_GROUPS}::test_a_single_device_is_shut_out_by_a_disabled_individual_enrollment",
        f"{_KEYS}::test_a_group_and_the_keys_derived_from_it",
        "provisioning/test_groups.py::test_an_individual_enrollment_decides_before_every_group",
    ),
    34: (
        f"{_PYTHON}::test_a_disabled_enrollment_ends_in_the_sdk_s_own_error",
        f"{_NODE}::test_a_disabled_enrollment_ends_in_the_client_s_own_error",
    ),
    35: (
        f"{_PYTHON}::test_a_certificate_that_is_not_the_enrolled_one",
        f"{_NODE}::test_a_key_that_is_not_the_enrolled_one",
        f"{_MQTT}::test_bad_proof_is_let_in_and_told_at_register",
    ),
    36: (
        f"{_WEBHOOK}::test_a_webhook_that_fails_fails_the_registration_and_is_explained",
        "clients/test_hubs_elsewhere.py::test_what_the_hub_says_when_it_refuses",
        "provisioning/test_provisioner.py::test_without_a_linked_hub_the_operation_fails",
    ),
    37: (
        f"{_HUBS}::test_weights_and_latencies_hold_for_the_next_registration",
        "provisioning/test_allocation.py::test_devices_are_spread_by_weight",
    ),
    38: (
        f"{_SERVICE}::test_an_enrollment_from_its_creation_to_its_end",
        "provisioning/test_enrollment.py::test_a_hub_named_the_old_way_is_static",
        "provisioning/test_allocation.py::test_static_takes_the_hub_that_is_named_in_any_case",
    ),
    39: (
        f"{_HUBS}::test_weights_and_latencies_hold_for_the_next_registration",
        "provisioning/test_allocation.py::test_geo_latency_takes_the_nearest_hub",
    ),
    40: (
        f"{_WEBHOOK}::test_the_webhook_gets_the_device_s_payload_and_gives_it_one",
        "provisioning/test_custom_allocation.py::test_the_question_is_azure_s",
    ),
    41: (
        f"{_WEBHOOK}::test_the_webhook_gets_the_device_s_payload_and_gives_it_one",
        "provisioning/test_operations.py::test_a_payload_of_any_kind_goes_up_and_down",
    ),
    42: (
        f"{_HUBS}::test_a_device_moves_with_its_twin",
        "provisioning/test_provisioner.py::test_migrate_takes_the_twin_along",
    ),
    43: (
        f"{_HUBS}::test_a_device_moves_and_begins_anew",
        "provisioning/test_provisioner.py::test_reset_starts_from_the_enrollment",
    ),
    44: (f"{_HUBS}::test_a_device_that_never_moves", "provisioning/test_provisioner.py::test_never_stays"),
    45: (
        f"{_PYTHON}::test_the_secondary_certificate_is_as_good",
        "provisioning/test_groups.py::test_new_keys_of_the_enrollment_reach_the_hub_with_the_next_registration",
    ),
    46: (
        f"{_PYTHON}::test_a_device_that_registers_again_is_told_the_same_place",
        "provisioning/test_registration.py::test_substatus_by_version",
        f"{_REST}::test_registration_records",
    ),
    47: (
        f"{_PYTHON}::test_the_operator_names_the_device",
        f"{_SERVICE}::test_an_enrollment_from_its_creation_to_its_end",
    ),
    48: (
        "clients/test_hub_device.py::test_the_device_reads_its_initial_twin",
        f"{_SERVICE}::test_an_enrollment_from_its_creation_to_its_end",
    ),
    49: (f"{_SERVICE}::test_what_is_enrolled_as_an_edge_device_is_one_in_the_hub",),
    50: (
        f"{_SERVICE}::test_the_same_enrollment_in_both_versions",
        f"{_CLI}::test_an_enrollment_whose_operator_decides_everything",
    ),
    51: (
        f"{_NODE}::test_a_device_registers_by_its_key",
        "provisioning/test_provisioner.py::test_an_enrolled_device_gets_its_hub_identity_and_twin",
        "provisioning/test_groups.py::test_a_group_takes_derived_keys_and_the_hub_gets_both_of_them",
    ),
    52: (
        f"{_SERVICE_NODE}::test_an_enrollment_from_its_creation_to_its_end",
        f"{_SERVICE}::test_an_enrollment_from_its_creation_to_its_end",
        f"{_CLI}::test_an_individual_enrollment_by_key",
        f"{_REST}::test_put_get_delete",
    ),
    53: (
        f"{_SERVICE_NODE}::test_a_group_from_its_creation_to_its_end",
        f"{_GROUPS}::test_groups_are_made_by_microsoft_s_service_client",
        f"{_KEYS}::test_a_group_and_the_keys_derived_from_it",
        f"{_CLI}::test_a_group_by_key_and_the_keys_of_its_devices",
    ),
    54: (
        f"{_SERVICE_NODE}::test_a_bad_etag_of_an_enrollment",
        f"{_SERVICE}::test_conditional_writes",
        f"{_REST}::test_conditional_writes",
        "provisioning/test_provisioner.py::test_forms_of_an_etag_that_matches",
    ),
    55: (
        f"{_SERVICE_NODE}::test_bulk_operations",
        f"{_SERVICE}::test_bulk_operations",
        f"{_REST}::test_bulk",
        "provisioning/test_provisioner.py::test_bulk_update_by_etag",
    ),
    56: (f"{_REST}::test_bulk_of_groups",),
    57: (
        f"{_SERVICE_NODE}::test_a_query_in_pages",
        f"{_SERVICE}::test_a_query_in_pages",
        f"{_SERVICE}::test_pages_by_continuation",
        f"{_REST}::test_queries_of_groups_and_of_registrations",
    ),
    58: (
        f"{_SERVICE_NODE}::test_the_attestation_mechanism_of_an_enrollment",
        f"{_SERVICE}::test_the_attestation_mechanism",
        f"{_KEYS}::test_a_group_and_the_keys_derived_from_it",
        f"{_REST}::test_attestation_mechanism",
    ),
    59: (
        f"{_SERVICE_NODE}::test_the_registrations_of_a_group",
        f"{_SERVICE}::test_the_registration_record",
        f"{_KEYS}::test_a_group_and_the_keys_derived_from_it",
        f"{_REST}::test_registration_records",
    ),
    60: (
        f"{_KEYS}::test_an_individual_enrollment_whose_keys_the_service_made",
        "provisioning/test_symmetric_key.py::test_what_is_shown_and_what_is_kept",
    ),
    61: (
        f"{_SERVICE}::test_every_encoding_of_a_certificate",
        f"{_SERVICE}::test_an_enrollment_from_its_creation_to_its_end",
    ),
    62: (
        f"{_SERVICE_NODE}::test_who_may_not_and_what_is_not_valid",
        "clients/test_policies.py::test_a_dps_policy_without_the_right_is_refused",
        f"{_REST}::test_a_policy_without_the_right",
    ),
    63: (
        f"{_SERVICE_NODE}::test_who_may_not_and_what_is_not_valid",
        f"{_SERVICE}::test_a_wrong_key_of_the_service",
        f"{_RAW}::test_a_rejection_says_in_json_why",
        "adapters/test_faults.py::test_the_dps_body",
    ),
    64: (
        f"{_SERVICE_NODE}::test_who_may_not_and_what_is_not_valid",
        f"{_SERVICE}::test_what_an_enrollment_may_not_say",
        "provisioning/test_enrollment.py::test_what_breaks_a_rule_is_refused_by_name",
        f"{_REST}::test_bodies_that_are_refused",
    ),
    65: (
        f"{_RAW}::test_a_device_that_polls_too_often_is_told_to_wait",
        f"{_MQTT}::test_too_many_registrations",
        f"{_AMQP}::test_too_many_polls",
        f"{_HTTPS}::test_too_many_calls_of_the_service_api",
    ),
    66: (
        f"{_SERVICE}::test_the_same_enrollment_in_both_versions",
        f"{_REST}::test_ways_to_write_a_path",
        f"{_HTTPS}::test_ids_and_words_in_any_case",
        f"{_MQTT}::test_ids_compare_without_regard_to_case",
    ),
    67: (
        "cli/test_policies_with_server.py::test_connection_strings_are_those_of_the_environment",
        "cli/test_policies_with_server.py::test_a_policy_from_its_creation_to_its_end",
        f"{_HUBS}::test_weights_and_latencies_hold_for_the_next_registration",
    ),
    68: (
        f"{_RAW}::test_iot_edge_registers_over_https",
        "adapters/test_api_versions.py::test_what_a_device_of_a_version_knows",
        f"{_MQTT}::test_an_older_program_is_told_what_it_knows",
    ),
    69: (
        f"{_CSR}::test_the_sdk_connects_with_the_issued_certificate_and_with_the_renewed_one",
        "adapters/test_dps_device.py::test_who_asks_for_a_certificate_finds_it_at_the_poll",
        "provisioning/test_issuance.py::test_a_device_is_given_a_chain_for_its_key",
    ),
    70: (
        f"{_CSR}::test_the_sdk_connects_with_the_issued_certificate_and_with_the_renewed_one",
        "provisioning/test_registration.py::test_the_answer_to_a_device_that_is_assigned",
    ),
    71: ("test_coverage.py::test_the_resource_manager_is_refused_in_its_own_shape",),
    72: (
        f"{_PYTHON}::test_what_has_become_of_devices_is_counted",
        "provisioning/test_counts.py::test_by_certificate_from_the_first_registration_to_a_refusal",
    ),
    73: (
        "powercut/test_registrations.py::test_no_power_cut_takes_a_device_out_of_its_hub",
        "crash/test_kill_registrations.py::test_what_a_device_was_told_is_so_after_kill_9",
        f"{_SERVICE}::test_the_device_outlives_its_enrollment",
        "provisioning/test_groups.py::test_the_records_of_a_group_page_by_page_and_after_it_is_gone",
    ),
    74: ("test_coverage.py::test_the_resource_manager_is_refused_in_its_own_shape",),
}

DPS_TRAPS: Mapping[int, Sequence[str]] = {
    1: (
        f"{_NODE}::test_a_device_registers_by_its_key",
        "credentials/test_sas.py::test_a_signature_covers_the_resource_as_it_was_written",
    ),
    2: (
        f"{_KEYS}::test_an_individual_enrollment_whose_keys_the_service_made",
        "credentials/test_sas.py::test_an_empty_key_name_is_none",
    ),
    3: (
        f"{_NODE}::test_a_key_that_is_not_the_enrolled_one",
        f"{_MQTT}::test_bad_proof_is_let_in_and_told_at_register",
    ),
    4: (
        f"{_NODE}::test_a_certificate_that_is_not_the_enrolled_one",
        "net/test_tls.py::test_any_certificate_is_taken_and_its_chain_kept",
    ),
    5: (
        f"{_PYTHON}::test_at_the_pace_of_azure_the_device_polls",
        f"{_MQTT}::test_the_pace",
        f"{_MQTT}::test_the_request_id_comes_back_byte_for_byte",
    ),
    6: (
        f"{_PYTHON}::test_at_the_pace_of_azure_the_device_polls",
        f"{_PYTHON}::test_a_device_is_assigned_without_a_poll",
    ),
    7: (f"{_MQTT}::test_register_and_poll", f"{_MQTT}::test_several_requests_at_once"),
    8: (f"{_MQTT}::test_register_bodies_of_all_clients",),
    9: (
        f"{_NODE}::test_at_the_pace_of_azure_the_device_waits_as_long_as_it_is_told",
        f"{_MQTT}::test_the_payload_of_a_poll_does_not_matter",
    ),
    10: (
        f"{_PYTHON}::test_a_device_is_assigned_without_a_poll",
        "provisioning/test_custom_allocation.py::test_the_question_of_a_group_and_of_a_device_that_comes_for_the_first_time",
    ),
    11: (f"{_RAW}::test_iot_edge_registers_over_https", f"{_MQTT}::test_the_pace"),
    12: (
        f"{_WEBHOOK}::test_a_webhook_that_takes_three_seconds_is_polled_for",
        "adapters/test_dps_device.py::test_an_operation_that_goes_on_is_polled",
    ),
    13: ("provisioning/test_registration.py::test_no_device_is_ever_told_that_it_is_unassigned",),
    14: (
        "adapters/test_dps_device.py::test_only_who_does_not_ask_for_ever_is_told_501",
        f"{_MQTT}::test_a_register_body_that_is_refused",
    ),
    15: (
        f"{_NODE}::test_a_key_that_is_not_the_enrolled_one",
        f"{_MQTT}::test_a_failure_of_ours_is_an_answer_too",
    ),
    16: (f"{_MQTT}::test_words_beyond_ascii_are_escaped",),
    17: (
        f"{_NODE}::test_a_device_registers_by_its_certificate",
        f"{_AMQP}::test_a_certificate_counts_however_sasl_was_passed",
    ),
    18: (f"{_RAW}::test_registration_over_amqp",),
    19: (f"{_RAW}::test_registration_over_amqp", f"{_AMQP}::test_a_correlation_id_comes_back_with_its_type"),
    20: (
        f"{_TPM}::test_a_device_proves_itself_in_sasl_and_registers",
        "credentials/test_tpm.py::test_a_blob_for_the_usual_keys_fits_the_frames_of_sasl_in_two_halves",
    ),
    21: (f"{_RAW}::test_registration_over_amqp", f"{_AMQP}::test_addresses_of_all_clients"),
    22: (
        f"{_SERVICE_NODE}::test_a_bad_etag_of_an_enrollment",
        f"{_SERVICE}::test_conditional_writes",
        "provisioning/test_provisioner.py::test_forms_of_an_etag_that_matches",
    ),
    23: (
        f"{_NODE}::test_a_device_registers_by_its_certificate",
        f"{_PYTHON}::test_both_apis_tell_the_same_of_a_registration",
        "provisioning/test_registration.py::test_etags_are_base64_of_a_quoted_text",
    ),
    24: (f"{_SERVICE}::test_an_enrollment_from_its_creation_to_its_end", f"{_REST}::test_put_get_delete"),
    25: (f"{_SERVICE}::test_conditional_writes", f"{_REST}::test_conditional_writes"),
    26: (f"{_SERVICE}::test_pages_by_continuation", f"{_REST}::test_queries_of_groups_and_of_registrations"),
    27: (f"{_SERVICE}::test_a_query_in_pages", f"{_REST}::test_a_full_last_page_has_no_continuation"),
    28: (
        f"{_SERVICE}::test_an_enrollment_from_its_creation_to_its_end",
        f"{_REST}::test_get_modify_put_without_the_certificate",
    ),
    29: (
        f"{_SERVICE}::test_the_attestation_mechanism",
        "provisioning/test_issuers.py::test_a_group_may_change_from_certificates_to_references",
    ),
    30: (
        f"{_REST}::test_the_registration_stands_in_get_and_not_in_query",
        f"{_REST}::test_queries_of_groups_and_of_registrations",
    ),
    31: (f"{_PYTHON}::test_both_apis_tell_the_same_of_a_registration",),
    32: (
        f"{_REST}::test_attestation_mechanism",
        "provisioning/test_provisioner.py::test_an_enrolled_device_gets_its_hub_identity_and_twin",
    ),
    33: (
        f"{_PYTHON}::test_a_device_is_assigned_without_a_poll",
        "provisioning/test_allocation.py::test_what_is_not_a_bare_host_name_is_refused",
    ),
    34: (
        f"{_GROUPS}::test_a_single_device_is_shut_out_by_a_disabled_individual_enrollment",
        "provisioning/test_groups.py::test_an_individual_enrollment_decides_before_every_group",
    ),
    35: (
        f"{_NODE}::test_at_the_pace_of_azure_the_device_waits_as_long_as_it_is_told",
        f"{_RAW}::test_a_content_encoding_that_is_none",
        f"{_REST}::test_headers_that_are_tolerated",
    ),
    36: (
        f"{_SERVICE_NODE}::test_bulk_operations",
        f"{_REST}::test_bulk",
        f"{_REST}::test_ways_to_write_a_path",
    ),
    37: (
        "credentials/test_sas.py::test_keys_have_16_to_64_bytes",
        "provisioning/test_symmetric_key.py::test_keys_that_are_given_are_taken",
    ),
    38: (
        f"{_PYTHON}::test_a_device_that_registers_again_is_told_the_same_place",
        f"{_MQTT}::test_an_older_program_is_told_what_it_knows",
    ),
    39: ("provisioning/test_groups.py::test_the_records_of_a_group_page_by_page_and_after_it_is_gone",),
    40: (
        f"{_AMQP}::test_requests_that_are_refused",
        f"{_NODE}::test_a_certificate_that_is_not_the_enrolled_one",
    ),
    41: ("adapters/test_mqtt.py::test_the_longest_silence",),
    42: (
        f"{_NODE}::test_a_device_registers_by_a_key_derived_from_its_group_s",
        "provisioning/test_groups.py::test_the_spelling_of_the_id_counts_and_lower_case_is_tried_too",
    ),
    43: (
        "provisioning/test_provisioner.py::test_registering_many_times_at_once_makes_one_device_and_every_answer_can_be_polled",
        "provisioning/test_operations.py::test_a_device_that_registers_again_meanwhile_joins_the_running_operation",
    ),
    44: (
        f"{_NODE}::test_a_device_registers_by_its_certificate",
        "net/test_tls.py::test_any_certificate_is_taken_and_its_chain_kept",
    ),
    45: (
        "provisioning/test_operations.py::test_a_payload_of_any_kind_goes_up_and_down",
        f"{_MQTT}::test_register_bodies_of_all_clients",
    ),
    46: (f"{_REST}::test_the_registration_stands_in_get_and_not_in_query",),
    47: (
        "adapters/test_dps_device.py::test_the_older_preview_s_request_and_none_at_all_are_answered_without",
    ),
    48: (f"{_MQTT}::test_user_names_of_all_clients",),
    49: (
        f"{_RAW}::test_iot_edge_registers_over_https",
        "provisioning/test_registration.py::test_the_answer_to_a_device_that_is_assigned",
    ),
    50: ("net/test_tls.py::test_no_session_is_resumed",),
}

PROOFS: Mapping[Area, Mapping[int, Sequence[str]]] = {
    Area.DPS: DPS_ROWS,
    Area.HUB_DEVICE: DEVICE_ROWS,
    Area.HUB_SERVICE: SERVICE_ROWS,
}
TRAPS: Mapping[Area, Mapping[int, Sequence[str]]] = {
    Area.DPS: DPS_TRAPS,
    Area.HUB_DEVICE: DEVICE_TRAPS,
    Area.HUB_SERVICE: SERVICE_TRAPS,
}
