"""What proves the hub: rows of its two checklists, traps of the protocol notes, and codes of errors.

Rows are those of `moorage.coverage` that are exact or approximate; what is refused is tried by `test_coverage.py`.
Traps are those of [hub-device 16] and [hub-service 27]; where one is about what is refused, its proof is the
refusal. Codes are those of [hub-service 4.2] and [hub-device 11].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# With Microsoft's clients, or with others of the public.
_DEVICE = "clients/test_hub_device.py"
_DEVICE_NODE = "clients/test_hub_device_node.py"
_LIVE_NODE = "clients/test_live_node.py"
_CONNECTIONS = "clients/test_connections.py"
_RAW = "clients/test_raw_mqtt.py"
_C2D = "clients/test_cloud_to_device.py"
_TWINS = "clients/test_twins.py"
_METHODS = "clients/test_methods.py"
_MODULES = "clients/test_modules.py"
_REGISTRY = "clients/test_registry.py"
_REGISTRY_NODE = "clients/test_registry_node.py"
_SERVICE_NODE = "clients/test_service_node.py"
_QUERY = "clients/test_hub_query.py"
_EVENTS = "clients/test_hub_events.py"
_READERS = "clients/test_event_hubs.py"
_READERS_NODE = "clients/test_event_hubs_node.py"
_REDIRECT = "clients/test_monitor_events.py"
_CERTIFICATES = "clients/test_hub_certificates.py"
_HUBS = "clients/test_several_hubs.py"
_SIMULATE = "clients/test_cli_simulate.py"
_CLI = "cli/test_hub_with_server.py"

# Against a site in memory.
_MQTT = "adapters/test_hub_mqtt.py"
_MODULE_MQTT = "adapters/test_hub_mqtt_modules.py"
_COMMANDS = "adapters/test_commands_mqtt.py"
_TWIN_MQTT = "adapters/test_twin_mqtt.py"
_METHOD_MQTT = "adapters/test_method_mqtt.py"
_REST = "adapters/test_hub_service.py"
_TWIN_REST = "adapters/test_hub_twins.py"
_MODULE_REST = "adapters/test_hub_modules.py"
_QUERY_REST = "adapters/test_hub_queries.py"
_ERRORS = "adapters/test_hub_errors.py"
_AMQP = "adapters/test_amqp.py"
_SENDING = "adapters/test_cloud_to_device_amqp.py"
_FEEDBACK = "adapters/test_feedback_amqp.py"
_FEEDBACK_REST = "adapters/test_message_routes.py"
_ENDPOINT = "adapters/test_event_hubs.py"
_HUB_EVENTS = "adapters/test_hub_events.py"
_SAS = "credentials/test_sas.py"
_QUEUES = "hub/test_device_queues.py"

_NO_HTTPS = f"{_REST}::test_a_device_over_https_is_refused_in_words"
_NO_AMQP = f"{_AMQP}::test_the_token_of_a_device_is_refused_in_words"

DEVICE_ROWS: Mapping[int, Sequence[str]] = {
    1: (
        f"{_DEVICE}::test_a_device_with_a_certificate",
        f"{_DEVICE_NODE}::test_telemetry_and_the_twin_by_key",
    ),
    2: (f"{_DEVICE}::test_a_device_with_a_certificate", f"{_DEVICE_NODE}::test_telemetry_by_certificate"),
    6: ("net/test_websocket.py::test_the_paths_as_clients_write_them",),
    8: (
        f"{_DEVICE}::test_a_device_with_a_certificate",
        "clients/test_cli_swarm.py::test_a_server_that_is_not_the_verified_one_gets_nothing",
    ),
    9: (f"{_DEVICE}::test_a_device_with_its_primary_and_its_secondary_key",),
    10: (f"{_SAS}::test_the_parts_come_in_any_order", f"{_RAW}::test_every_form_of_user_name"),
    11: (
        f"{_DEVICE}::test_a_token_of_a_hub_policy_speaks_for_a_device",
        f"{_MQTT}::test_a_policy_connects_any_device_when_it_has_the_right",
    ),
    12: (
        f"{_DEVICE}::test_an_expired_token",
        f"{_RAW}::test_a_token_that_expired_a_moment_ago_is_still_good",
        f"{_RAW}::test_a_token_that_expired_a_day_ago",
    ),
    13: (
        f"{_MQTT}::test_a_token_may_expire_while_connected_and_is_suffered_for_minutes",
        f"{_MODULE_MQTT}::test_a_module_goes_some_minutes_after_its_token",
    ),
    14: (
        f"{_CONNECTIONS}::test_a_token_is_renewed_before_its_end_and_no_message_is_lost",
        f"{_CONNECTIONS}::test_a_program_that_makes_its_own_tokens_is_asked_for_a_new_one",
    ),
    16: (
        f"{_DEVICE}::test_a_device_with_a_certificate",
        f"{_DEVICE}::test_the_second_certificate_of_a_device_by_its_sha1",
        f"{_DEVICE_NODE}::test_telemetry_by_certificate",
    ),
    17: (
        f"{_CERTIFICATES}::test_a_device_and_its_module_connect_by_certificates_of_a_verified_ca",
        "hub/test_uploaded_authorities.py::test_each_link_is_judged_and_told",
    ),
    18: (f"{_DEVICE}::test_a_wrong_certificate", f"{_MQTT}::test_certificates"),
    19: (f"{_DEVICE}::test_a_device_with_a_certificate", f"{_MQTT}::test_certificates"),
    20: (f"{_DEVICE}::test_an_unknown_device", f"{_MQTT}::test_user_names_that_name_nobody"),
    21: (
        f"{_DEVICE}::test_a_disabled_device_is_dropped_and_refused_until_it_is_enabled",
        f"{_MQTT}::test_a_device_that_may_no_longer_be_is_cut",
    ),
    22: (
        f"{_DEVICE}::test_a_newer_connection_takes_over_and_keeps_it",
        f"{_MQTT}::test_the_newer_connection_wins",
    ),
    23: (f"{_RAW}::test_every_form_of_user_name", f"{_MQTT}::test_user_names_of_all_clients"),
    24: (
        f"{_DEVICE}::test_every_kind_of_property_arrives",
        f"{_MQTT}::test_the_model_id_of_a_user_name_encoded_or_not",
        f"{_MQTT}::test_what_the_hub_stamps",
    ),
    25: (
        f"{_C2D}::test_a_session_is_kept",
        f"{_COMMANDS}::test_a_session_outlives_a_restart_of_the_server",
        "clients/test_kill_cloud_to_device.py::test_what_waits_for_a_device_outlives_the_server",
    ),
    26: (
        f"{_RAW}::test_a_device_that_is_silent_for_longer_than_its_keep_alive_is_dropped",
        f"{_MQTT}::test_a_ping_is_answered_while_the_disk_is_slow",
    ),
    27: (f"{_MQTT}::test_subscriptions_are_granted_or_refused_one_by_one",),
    28: (
        f"{_COMMANDS}::test_unsubscribing_ends_delivery_and_not_the_connection",
        f"{_METHOD_MQTT}::test_giving_up_the_subscription_and_nothing_else",
    ),
    29: (
        f"{_RAW}::test_telemetry_by_its_topic",
        f"{_MQTT}::test_a_puback_comes_after_the_sync_and_not_before",
        f"{_MQTT}::test_quality_of_service_0_is_kept_and_not_acknowledged",
    ),
    30: (
        f"{_DEVICE}::test_every_kind_of_property_arrives",
        f"{_MQTT}::test_system_properties_raw_and_encoded",
    ),
    31: (f"{_DEVICE}::test_unusual_characters_in_properties_arrive_as_they_were",),
    32: (
        f"{_MQTT}::test_property_bags_of_all_clients",
        "hub/test_telemetry.py::test_application_properties_keep_order_nulls_and_odd_names",
    ),
    33: (f"{_DEVICE}::test_payloads_of_every_size_arrive_byte_for_byte",),
    34: (
        f"{_DEVICE}::test_payloads_of_every_size_arrive_byte_for_byte",
        f"{_RAW}::test_a_message_of_the_greatest_size_arrives_and_a_greater_one_closes",
    ),
    35: (
        f"{_RAW}::test_a_message_of_the_greatest_size_arrives_and_a_greater_one_closes",
        f"{_MQTT}::test_the_size_limit_counts_body_and_properties",
    ),
    36: (
        f"{_RAW}::test_the_will_of_a_device_that_goes_without_a_word",
        f"{_MQTT}::test_the_will_of_a_lost_connection",
    ),
    37: (
        f"{_RAW}::test_a_retained_message_is_marked_and_not_retained",
        f"{_MQTT}::test_retain_becomes_a_property_of_that_message_alone",
    ),
    38: ("hub/test_telemetry.py::test_system_properties_find_their_places",),
    39: (
        f"{_MODULES}::test_a_module_connects_and_sends",
        f"{_MODULE_MQTT}::test_telemetry_names_the_module_and_its_output",
    ),
    43: (
        f"{_DEVICE}::test_a_device_with_a_certificate",
        f"{_DEVICE}::test_a_token_of_a_hub_policy_speaks_for_a_device",
        "hub/test_telemetry.py::test_the_way_of_authentication_is_stamped",
    ),
    44: (
        f"{_C2D}::test_a_message_with_all_its_properties",
        f"{_LIVE_NODE}::test_messages_reach_the_device_and_their_sender_is_told",
        f"{_COMMANDS}::test_puback_completes",
    ),
    48: (
        f"{_C2D}::test_messages_wait_for_a_device_that_is_away",
        f"{_COMMANDS}::test_messages_sent_before_the_first_subscription_come_with_it",
    ),
    50: (f"{_C2D}::test_a_large_message_and_one_of_nothing", f"{_COMMANDS}::test_a_message_of_nothing"),
    51: (
        f"{_COMMANDS}::test_a_message_comes_under_the_topic_that_clients_expect",
        f"{_SENDING}::test_ids_in_every_writing",
    ),
    52: (
        f"{_LIVE_NODE}::test_messages_reach_the_device_and_their_sender_is_told",
        f"{_SERVICE_NODE}::test_who_asked_is_told_what_became_of_a_message",
        "hub/test_feedback.py::test_what_a_record_says",
    ),
    53: (
        f"{_C2D}::test_messages_wait_in_the_queue_and_are_purged",
        f"{_C2D}::test_an_expiry_that_has_passed",
        f"{_QUEUES}::test_a_message_expires",
        f"{_QUEUES}::test_a_message_given_back_too_often_is_dead",
    ),
    54: (f"{_C2D}::test_a_full_queue", f"{_QUEUES}::test_messages_on_their_way_to_the_disk_count_too"),
    55: (f"{_MODULE_MQTT}::test_messages_for_a_module", f"{_SENDING}::test_a_module_that_is_not_there"),
    56: (f"{_MODULE_MQTT}::test_a_module_may_listen_to_its_inputs",),
    57: (
        f"{_DEVICE}::test_the_device_reads_its_initial_twin",
        f"{_RAW}::test_the_twin_by_its_topics",
        f"{_TWIN_MQTT}::test_a_twin_is_read_with_puback_before_the_response",
    ),
    59: (
        f"{_TWINS}::test_reported_and_desired_properties",
        f"{_LIVE_NODE}::test_reported_properties_reach_the_back_end",
        f"{_TWIN_MQTT}::test_what_is_reported_is_confirmed_with_its_version",
    ),
    61: (
        f"{_TWINS}::test_a_patch_under_a_version_and_without_a_request_id",
        f"{_TWIN_MQTT}::test_a_patch_may_count_on_a_version",
    ),
    62: (
        f"{_TWINS}::test_what_a_device_may_not_report",
        f"{_TWIN_MQTT}::test_a_patch_that_breaks_a_rule_is_refused_whole_and_in_words",
    ),
    63: (
        f"{_TWINS}::test_reported_and_desired_properties",
        "hub/test_twin.py::test_a_patch_merges_deletes_and_replaces",
        "hub/test_twin.py::test_deleting_below_what_is_absent_makes_an_empty_object",
    ),
    64: (
        "hub/test_twin.py::test_what_desired_properties_may_hold",
        f"{_TWIN_REST}::test_values_keep_their_form",
    ),
    65: (f"{_TWIN_REST}::test_values_keep_their_form",),
    66: (
        f"{_TWINS}::test_reported_and_desired_properties",
        f"{_LIVE_NODE}::test_desired_properties_reach_the_device",
        f"{_TWIN_MQTT}::test_a_patch_is_told_with_its_nulls_and_its_version",
    ),
    68: (f"{_TWIN_MQTT}::test_who_does_not_listen_is_told_nothing",),
    69: (
        f"{_TWINS}::test_what_changed_while_the_device_was_away",
        f"{_TWINS}::test_a_program_that_comes_back_is_told_what_it_has_missed",
        f"{_LIVE_NODE}::test_what_changed_while_the_device_was_away",
        f"{_TWIN_MQTT}::test_what_changed_while_away_is_read_with_the_twin",
    ),
    70: (f"{_TWINS}::test_a_module_twin", f"{_LIVE_NODE}::test_a_module_has_a_twin_and_methods_of_its_own"),
    71: (
        f"{_METHODS}::test_a_call_and_its_answer",
        f"{_LIVE_NODE}::test_a_method_is_called_and_answers",
        f"{_METHODS}::test_by_the_documented_topics",
    ),
    73: (f"{_METHOD_MQTT}::test_payloads_of_every_kind_both_ways", f"{_METHODS}::test_a_call_and_its_answer"),
    74: (
        f"{_METHODS}::test_a_device_that_does_not_answer_in_time",
        f"{_METHOD_MQTT}::test_a_device_that_takes_too_long",
    ),
    75: (
        f"{_METHODS}::test_those_who_cannot_be_reached",
        f"{_LIVE_NODE}::test_a_method_of_a_device_that_is_away",
        f"{_METHOD_MQTT}::test_nobody",
    ),
    76: (
        f"{_METHODS}::test_a_method_of_a_module",
        f"{_LIVE_NODE}::test_a_module_has_a_twin_and_methods_of_its_own",
    ),
    82: (f"{_AMQP}::test_mechanisms_that_prove_nothing_yet", f"{_AMQP}::test_without_sasl", _NO_AMQP),
    83: (f"{_AMQP}::test_an_answer_repeats_the_message_id_with_its_type", _NO_AMQP),
    86: (f"{_AMQP}::test_a_peer_hears_from_us_as_often_as_it_wants", f"{_AMQP}::test_a_silent_peer_is_left"),
    91: (f"{_EVENTS}::test_the_life_of_a_device_in_order", f"{_HUB_EVENTS}::test_what_a_service_patches"),
    92: (
        f"{_SIMULATE}::test_a_device_sends_what_a_back_end_reads",
        f"{_SIMULATE}::test_a_back_end_and_a_device_talk",
    ),
}

SERVICE_ROWS: Mapping[int, Sequence[str]] = {
    1: (f"{_REGISTRY}::test_a_device_with_given_keys", f"{_HUBS}::test_it_is_found_by_the_commands"),
    2: (f"{_REST}::test_the_api_version_is_required", f"{_REST}::test_any_date_is_a_version"),
    3: (
        f"{_AMQP}::test_tokens_of_all_clients",
        f"{_SAS}::test_a_signature_covers_the_resource_as_it_was_written",
        f"{_SAS}::test_event_hubs_clients_sign_with_the_text_of_the_key",
        "clients/test_policies.py::test_a_key_made_anew_ends_the_old_one",
    ),
    4: (
        f"{_REST}::test_a_token_covers_what_lies_below_it",
        f"{_SAS}::test_a_token_covers_what_lies_below_its_resource",
    ),
    5: (_NO_AMQP, f"{_REST}::test_a_refusal_leaves_a_record"),
    6: (
        f"{_REST}::test_the_right_of_each_operation",
        f"{_REGISTRY_NODE}::test_who_may_not",
        "clients/test_policies.py::test_a_hub_policy_without_the_right_is_refused",
    ),
    7: (
        f"{_REGISTRY}::test_who_is_signed_in_at_microsoft_entra_is_refused",
        f"{_REST}::test_a_refusal_leaves_a_record",
    ),
    8: (
        f"{_ERRORS}::test_each_code_over_rest",
        f"{_REGISTRY_NODE}::test_a_device_from_its_creation_to_its_end",
    ),
    9: (f"{_ERRORS}::test_each_code_over_rest", f"{_METHODS}::test_those_who_cannot_be_reached"),
    10: (f"{_SENDING}::test_a_full_queue", f"{_SERVICE_NODE}::test_what_may_not_be_sent"),
    12: (
        f"{_REGISTRY}::test_the_hub_makes_keys_that_are_left_out",
        f"{_REGISTRY_NODE}::test_a_device_from_its_creation_to_its_end",
    ),
    13: (
        f"{_REGISTRY}::test_a_device_with_given_keys",
        f"{_REGISTRY}::test_a_device_with_a_thumbprint",
        f"{_REGISTRY}::test_a_device_of_a_certificate_authority_and_an_edge_device",
        f"{_REGISTRY_NODE}::test_every_kind_of_proof",
    ),
    14: (f"{_REST}::test_put_without_a_condition_does_not_overwrite", f"{_REGISTRY}::test_bad_devices"),
    15: (f"{_REST}::test_create_read_update_delete",),
    16: (
        f"{_REGISTRY}::test_an_update_and_its_etag",
        f"{_REST}::test_any_etag_in_all_forms",
        f"{_REST}::test_an_etag_in_all_forms",
    ),
    17: (
        f"{_REGISTRY_NODE}::test_keys_are_made_anew",
        "hub/test_identity.py::test_an_empty_key_is_made_anew",
    ),
    18: (
        f"{_REGISTRY_NODE}::test_a_device_from_its_creation_to_its_end",
        f"{_REGISTRY}::test_an_update_and_its_etag",
    ),
    19: (
        f"{_REGISTRY_NODE}::test_a_device_from_its_creation_to_its_end",
        "hub/test_identity.py::test_deleting_needs_the_device_and_its_etag",
    ),
    20: (
        f"{_REST}::test_ids_with_escapes_are_decoded_once_and_behind_the_split",
        f"{_DEVICE}::test_a_device_whose_name_holds_all_that_a_topic_can",
    ),
    21: (f"{_REST}::test_lists", f"{_REGISTRY}::test_lists_and_statistics"),
    22: (
        f"{_REGISTRY}::test_bulk",
        f"{_REGISTRY_NODE}::test_many_devices_at_once",
        f"{_REST}::test_bulk_answers_in_one_shape_whether_done_or_not",
    ),
    23: (
        f"{_MODULES}::test_create_read_update_and_delete",
        f"{_REGISTRY_NODE}::test_a_module_from_its_creation_to_its_end",
        f"{_MODULE_REST}::test_create_read_update_delete",
    ),
    24: (f"{_MODULES}::test_create_read_update_and_delete", f"{_MODULE_REST}::test_new_keys_for_many"),
    25: (f"{_MODULES}::test_an_edge_device_has_its_runtime_modules",),
    26: (
        f"{_CLI}::test_children_stand_below_an_edge_device",
        f"{_MODULE_REST}::test_an_edge_device_shows_its_modules_and_a_leaf_its_parent",
        "hub/test_identity.py::test_a_scope_of_no_edge_device_is_invalid",
    ),
    27: (f"{_CLI}::test_keys_are_made_anew_for_many_at_once", f"{_MODULE_REST}::test_new_keys_for_many"),
    28: (f"{_REGISTRY}::test_lists_and_statistics", f"{_REGISTRY_NODE}::test_statistics"),
    29: (
        f"{_C2D}::test_messages_wait_in_the_queue_and_are_purged",
        f"{_FEEDBACK_REST}::test_purge_says_how_many",
    ),
    30: (f"{_REGISTRY}::test_a_device_made_again_is_another_one",),
    31: (f"{_REGISTRY}::test_a_twin_is_read", f"{_MODULES}::test_a_module_twin_is_read"),
    32: (
        f"{_TWINS}::test_reported_and_desired_properties",
        f"{_TWIN_REST}::test_a_patch_merges_and_a_replacement_does_not",
    ),
    33: (
        f"{_TWIN_REST}::test_a_patch_merges_and_a_replacement_does_not",
        f"{_CLI}::test_a_twin_is_changed_in_part_and_whole",
    ),
    34: (f"{_TWINS}::test_etags_and_conditions", f"{_TWIN_REST}::test_a_condition"),
    35: (
        f"{_TWIN_REST}::test_a_twin_whole",
        f"{_TWIN_REST}::test_tags_alone_leave_the_properties",
        "hub/test_twin.py::test_metadata_mirrors_the_values",
    ),
    36: (
        f"{_TWINS}::test_desired_null_tells_each_key_that_is_gone",
        f"{_TWIN_MQTT}::test_null_for_all_tells_each_key",
    ),
    37: (f"{_TWIN_REST}::test_limits", "hub/test_twin.py::test_what_desired_properties_may_not_hold"),
    38: (f"{_TWIN_REST}::test_a_twin_whole", f"{_MODULE_REST}::test_a_module_that_is_connected_shows_it"),
    39: (
        f"{_QUERY}::test_the_python_client_walks_through_the_pages",
        f"{_QUERY}::test_the_node_client_walks_through_the_pages",
        f"{_QUERY_REST}::test_pages",
    ),
    40: (
        f"{_QUERY_REST}::test_whole_twins_are_as_the_twin_routes_show_them",
        f"{_QUERY_REST}::test_projections",
    ),
    41: (f"{_QUERY_REST}::test_projections", f"{_QUERY_REST}::test_counting_and_grouping"),
    42: (
        f"{_QUERY_REST}::test_conditions",
        f"{_QUERY_REST}::test_children_are_found_by_the_scope_of_their_parent",
    ),
    43: (f"{_QUERY_REST}::test_whole_twins_are_as_the_twin_routes_show_them",),
    44: (
        f"{_QUERY_REST}::test_of_jobs_there_are_none_as_none_can_be_scheduled",
        f"{_QUERY_REST}::test_what_cannot_be_asked_of_jobs_is_refused",
    ),
    45: (
        f"{_QUERY}::test_the_python_client_is_told_what_is_wrong",
        f"{_QUERY_REST}::test_a_query_that_makes_no_sense",
    ),
    46: (f"{_METHODS}::test_a_call_and_its_answer", f"{_LIVE_NODE}::test_a_method_is_called_and_answers"),
    47: (
        f"{_METHODS}::test_a_method_of_a_module",
        f"{_LIVE_NODE}::test_a_module_has_a_twin_and_methods_of_its_own",
    ),
    48: (
        f"{_METHODS}::test_a_device_that_connects_while_it_is_called",
        f"{_METHOD_MQTT}::test_waiting_for_the_device_to_connect",
    ),
    49: (
        f"{_METHODS}::test_those_who_cannot_be_reached",
        f"{_METHODS}::test_a_device_that_does_not_answer_in_time",
    ),
    50: (
        f"{_METHOD_MQTT}::test_payloads_of_every_kind_both_ways",
        f"{_METHOD_MQTT}::test_without_a_payload_both_ways",
    ),
    51: (
        f"{_C2D}::test_messages_wait_in_the_queue_and_are_purged",
        f"{_READERS}::test_batches",
        "wire/amqp/test_sasl.py::test_a_server_offers_all_mechanisms_of_a_hub_together",
    ),
    52: (f"{_SERVICE_NODE}::test_messages_wait_for_the_device", f"{_AMQP}::test_without_sasl"),
    53: (
        f"{_AMQP}::test_an_answer_repeats_the_message_id_with_its_type",
        f"{_AMQP}::test_a_token_that_holds_is_answered_by_an_int_200",
    ),
    54: (
        f"{_AMQP}::test_a_token_that_does_not_hold_leaves_the_links_open",
        f"{_AMQP}::test_a_later_token_takes_the_place_of_an_earlier",
        f"{_ENDPOINT}::test_links_end_with_the_token_that_allowed_them",
    ),
    55: (
        f"{_REDIRECT}::test_uamqp_reads_on_from_the_redirect",
        f"{_AMQP}::test_plain_with_the_token_of_a_policy",
    ),
    56: (
        f"{_AMQP}::test_an_address_is_a_path_however_it_is_written",
        f"{_ENDPOINT}::test_an_address_in_three_forms_and_any_case",
    ),
    57: (
        "wire/amqp/test_performatives.py::test_every_field_is_written_nulls_at_the_end_included",
        "wire/amqp/test_azure_codec.py::test_it_finds_all_fields_of_open_and_begin",
        "wire/amqp/test_azure_codec.py::test_it_finds_source_and_target_of_an_attach",
    ),
    58: (f"{_AMQP}::test_a_detach_behind_the_end_of_its_session_is_passed_over",),
    59: (
        f"{_SERVICE_NODE}::test_messages_wait_for_the_device",
        "net/test_websocket.py::test_the_paths_as_clients_write_them",
    ),
    60: (
        f"{_READERS}::test_reading_over_websockets",
        "net/test_websocket.py::test_the_paths_as_clients_write_them",
    ),
    61: (
        f"{_C2D}::test_a_message_with_all_its_properties",
        f"{_SERVICE_NODE}::test_messages_wait_for_the_device",
        f"{_MODULE_MQTT}::test_messages_for_a_module",
    ),
    62: (f"{_SENDING}::test_ids_in_every_writing", f"{_SENDING}::test_recipients"),
    63: (
        f"{_C2D}::test_a_message_with_all_its_properties",
        f"{_C2D}::test_a_large_message_and_one_of_nothing",
        f"{_SENDING}::test_a_message_is_kept_as_it_was_sent",
        f"{_SENDING}::test_bodies",
    ),
    64: (f"{_C2D}::test_a_device_that_is_not_there", f"{_SENDING}::test_a_device_that_is_not_there"),
    65: (f"{_C2D}::test_a_full_queue", f"{_SENDING}::test_a_full_queue"),
    66: (f"{_C2D}::test_a_large_message_and_one_of_nothing", f"{_SENDING}::test_the_size_limit"),
    67: (
        f"{_SERVICE_NODE}::test_who_asked_is_told_what_became_of_a_message",
        f"{_FEEDBACK}::test_a_batch_as_clients_need_it",
    ),
    68: (
        f"{_FEEDBACK}::test_what_is_accepted_or_rejected_is_gone",
        f"{_FEEDBACK}::test_what_is_released_comes_again",
        f"{_FEEDBACK}::test_competing_receivers_share_the_batches",
    ),
    69: (
        f"{_C2D}::test_feedback_over_rest",
        f"{_FEEDBACK_REST}::test_feedback_is_received_completed_and_abandoned",
    ),
    71: (
        f"{_READERS}::test_a_reader_begins_where_it_wants",
        f"{_READERS_NODE}::test_the_endpoint_and_its_partitions",
    ),
    72: (
        f"{_READERS}::test_the_properties_of_the_endpoint_and_its_partitions",
        f"{_READERS_NODE}::test_the_endpoint_and_its_partitions",
    ),
    73: (
        f"{_READERS}::test_the_consumer_group_is_found_in_any_case",
        "clients/test_consumer_groups.py::test_two_groups_are_read_each_for_itself",
        f"{_READERS_NODE}::test_two_consumer_groups_over_all_partitions",
    ),
    74: (f"{_READERS}::test_a_reader_begins_where_it_wants", f"{_ENDPOINT}::test_selectors_of_all_clients"),
    75: (
        f"{_READERS}::test_an_owner_level_as_high_or_higher_takes_the_partition",
        f"{_READERS_NODE}::test_an_owner_takes_the_partition",
    ),
    76: (
        f"{_READERS}::test_a_reader_may_follow_how_far_it_is_behind",
        f"{_ENDPOINT}::test_runtime_metrics_for_those_who_ask",
    ),
    77: (f"{_READERS}::test_an_event_as_the_reader_hands_it_out", f"{_MQTT}::test_what_the_hub_stamps"),
    78: (
        "hub/test_instance.py::test_the_partition_of_a_device_is_fixed_for_ever",
        f"{_DEVICE}::test_messages_in_flight_at_once_are_all_kept_in_order",
    ),
    79: (
        "messaging/test_embedded.py::test_a_reader_behind_retention_goes_on_with_the_oldest",
        f"{_ENDPOINT}::test_a_place_that_there_is_not",
    ),
    80: (
        f"{_REDIRECT}::test_the_hub_tells_where_its_endpoint_is",
        f"{_REDIRECT}::test_uamqp_reads_on_from_the_redirect",
    ),
    81: (
        f"{_READERS}::test_reading_over_websockets",
        f"{_READERS}::test_reading_by_an_endpoint_of_ones_own",
        f"{_READERS}::test_reading_without_tls",
        f"{_READERS_NODE}::test_where_a_reader_begins",
    ),
    82: ("adapters/control/test_message_routes.py::test_a_route_from_its_making_to_its_end",),
    85: (
        f"{_EVENTS}::test_the_life_of_a_device_in_order",
        f"{_HUB_EVENTS}::test_an_update_has_what_was_written_alone_with_its_nulls",
    ),
    86: (
        f"{_EVENTS}::test_the_life_of_a_device_in_order",
        f"{_HUB_EVENTS}::test_connections_are_told_with_numbers_that_grow",
    ),
    98: (f"{_CERTIFICATES}::test_a_device_and_its_module_connect_by_certificates_of_a_verified_ca",),
}

DEVICE_TRAPS: Mapping[int, Sequence[str]] = {
    1: (f"{_COMMANDS}::test_a_message_comes_under_the_topic_that_clients_expect",),
    2: (f"{_COMMANDS}::test_a_message_comes_under_the_topic_that_clients_expect",),
    3: (f"{_COMMANDS}::test_a_message_comes_under_the_topic_that_clients_expect",),
    4: (
        f"{_LIVE_NODE}::test_messages_reach_the_device_and_their_sender_is_told",
        f"{_COMMANDS}::test_a_message_of_nothing",
    ),
    5: (
        f"{_C2D}::test_a_message_with_all_its_properties",
        "wire/mqtt/test_topics.py::test_all_but_unreserved_characters_are_escaped",
    ),
    6: (f"{_METHOD_MQTT}::test_payloads_of_every_kind_both_ways",),
    7: (f"{_MQTT}::test_property_bags_of_all_clients",),
    8: (
        f"{_MQTT}::test_ids_stand_raw_in_topics",
        f"{_MQTT}::test_a_device_whose_id_is_a_wildcard_connects_and_matches_nobody_else",
    ),
    9: (
        f"{_MQTT}::test_user_names_of_all_clients",
        f"{_MQTT}::test_the_model_id_of_a_user_name_encoded_or_not",
    ),
    10: (f"{_MQTT}::test_refusals_and_their_codes",),
    11: (f"{_COMMANDS}::test_a_session_is_kept_with_all_that_was_subscribed",),
    12: (f"{_TWIN_MQTT}::test_a_twin_is_read_with_puback_before_the_response",),
    13: (
        f"{_TWIN_MQTT}::test_what_is_reported_is_confirmed_with_its_version",
        f"{_LIVE_NODE}::test_reported_properties_reach_the_back_end",
    ),
    14: (f"{_TWIN_MQTT}::test_a_patch_that_breaks_a_rule_is_refused_whole_and_in_words",),
    15: (
        f"{_TWIN_MQTT}::test_a_patch_is_told_with_its_nulls_and_its_version",
        f"{_TWINS}::test_reported_and_desired_properties",
    ),
    16: (
        f"{_MQTT}::test_subscriptions_are_granted_or_refused_one_by_one",
        f"{_MQTT}::test_other_topics_close",
    ),
    17: (f"{_DEVICE}::test_a_newer_connection_takes_over_and_keeps_it",),
    18: (f"{_AMQP}::test_without_sasl", f"{_SERVICE_NODE}::test_messages_wait_for_the_device"),
    19: (
        f"{_AMQP}::test_an_answer_repeats_the_message_id_with_its_type",
        f"{_AMQP}::test_a_token_that_holds_is_answered_by_an_int_200",
    ),
    20: (_NO_AMQP,),
    21: (_NO_AMQP,),
    22: (f"{_FEEDBACK}::test_a_batch_as_clients_need_it", _NO_AMQP),
    23: (f"{_SENDING}::test_bodies", "wire/amqp/test_message.py::test_an_empty_data_section_stays"),
    24: (f"{_COMMANDS}::test_a_message_comes_under_the_topic_that_clients_expect",),
    25: (f"{_SENDING}::test_ids_in_every_writing",),
    26: (_NO_AMQP,),
    27: (f"{_SENDING}::test_values_of_other_types_keep_their_text",),
    28: (_NO_AMQP,),
    29: ("wire/amqp/test_session.py::test_either_end_may_end_a_session",),
    30: ("wire/amqp/test_session.py::test_the_same_names_and_handles_in_many_sessions_are_different_links",),
    31: ("wire/amqp/test_link.py::test_a_peer_of_small_frames_gets_many",),
    32: (_NO_AMQP,),
    33: (_NO_HTTPS,),
    34: (_NO_HTTPS,),
    35: (_NO_HTTPS,),
    36: (_NO_HTTPS,),
    37: (_NO_HTTPS,),
    38: (_NO_HTTPS,),
    39: (f"{_ERRORS}::test_each_code_over_rest", _NO_HTTPS),
    40: (_NO_HTTPS,),
    41: (_NO_HTTPS,),
    42: (_NO_HTTPS,),
    43: (_NO_HTTPS,),
    44: (_NO_HTTPS,),
    45: (
        f"{_RAW}::test_a_token_that_expired_a_moment_ago_is_still_good",
        f"{_RAW}::test_a_token_that_expired_a_day_ago",
    ),
    46: (
        f"{_READERS}::test_an_event_as_the_reader_hands_it_out",
        f"{_FEEDBACK}::test_a_batch_as_clients_need_it",
    ),
    47: (
        f"{_TWIN_MQTT}::test_changes_come_in_the_order_of_their_versions",
        "hub/test_twins.py::test_changes_are_told_in_order_and_only_once_they_are_durable",
    ),
    48: (
        f"{_QUEUES}::test_a_queue_takes_fifty_messages",
        f"{_COMMANDS}::test_a_device_that_does_not_acknowledge_gets_sixteen",
    ),
    49: (
        f"{_MQTT}::test_enabling_again_brings_no_old_connection_back",
        f"{_QUEUES}::test_a_disabled_device_keeps_its_queue",
    ),
    50: (f"{_MQTT}::test_what_is_seen_of_a_device", _NO_HTTPS),
    51: (
        f"{_MQTT}::test_a_puback_comes_after_the_sync_and_not_before",
        "crash/test_kill.py::test_nothing_acknowledged_is_lost_by_kill_9",
    ),
}

SERVICE_TRAPS: Mapping[int, Sequence[str]] = {
    1: (
        f"{_SAS}::test_a_signature_covers_the_resource_as_it_was_written",
        f"{_AMQP}::test_tokens_of_all_clients",
    ),
    2: (
        f"{_AMQP}::test_plain_with_the_token_of_a_policy",
        f"{_REDIRECT}::test_uamqp_reads_on_from_the_redirect",
    ),
    3: (
        "wire/amqp/test_sasl.py::test_a_server_offers_all_mechanisms_of_a_hub_together",
        f"{_AMQP}::test_without_sasl",
        f"{_SERVICE_NODE}::test_messages_wait_for_the_device",
    ),
    4: (
        "wire/amqp/test_performatives.py::test_every_field_is_written_nulls_at_the_end_included",
        f"{_READERS}::test_batches",
    ),
    5: (f"{_AMQP}::test_an_answer_repeats_the_message_id_with_its_type",),
    6: (f"{_AMQP}::test_a_token_that_holds_is_answered_by_an_int_200",),
    7: (f"{_AMQP}::test_a_detach_behind_the_end_of_its_session_is_passed_over",),
    8: (
        f"{_AMQP}::test_an_address_is_a_path_however_it_is_written",
        f"{_ENDPOINT}::test_an_address_in_three_forms_and_any_case",
    ),
    9: ("net/test_websocket.py::test_the_paths_as_clients_write_them",),
    10: (f"{_REST}::test_any_etag_in_all_forms", f"{_REST}::test_conditions"),
    11: (f"{_REST}::test_lists",),
    12: (
        f"{_ERRORS}::test_each_code_over_rest",
        f"{_REGISTRY_NODE}::test_a_device_from_its_creation_to_its_end",
    ),
    13: (f"{_ERRORS}::test_each_code_over_rest", f"{_METHODS}::test_those_who_cannot_be_reached"),
    14: (f"{_QUERY_REST}::test_projections", f"{_QUERY}::test_the_node_client_walks_through_the_pages"),
    15: ("clients/test_refusals.py::test_port_443_taken_moves_rest_to_8443",),
    16: (f"{_SENDING}::test_ids_in_every_writing", f"{_SENDING}::test_recipients"),
    17: (f"{_FEEDBACK}::test_a_batch_as_clients_need_it",),
    18: (f"{_FEEDBACK}::test_what_is_released_comes_again",),
    19: (f"{_MQTT}::test_what_the_hub_stamps", f"{_HUB_EVENTS}::test_a_device_from_its_making_to_its_end"),
    20: (
        f"{_READERS}::test_an_event_as_the_reader_hands_it_out",
        f"{_ENDPOINT}::test_runtime_metrics_for_those_who_ask",
    ),
    21: (f"{_ENDPOINT}::test_selectors_of_all_clients",),
    22: (f"{_READERS}::test_the_consumer_group_is_found_in_any_case",),
    23: (
        f"{_REDIRECT}::test_uamqp_reads_on_from_the_redirect",
        f"{_ENDPOINT}::test_the_redirect_leads_to_where_the_client_came",
    ),
    24: (f"{_HUB_EVENTS}::test_an_update_has_what_was_written_alone_with_its_nulls",),
    25: (f"{_TWIN_REST}::test_a_twin_whole", f"{_REST}::test_create_read_update_delete"),
    26: (f"{_REST}::test_the_hub_makes_the_keys_that_are_missing",),
    27: (
        f"{_REST}::test_bulk_answers_in_one_shape_whether_done_or_not",
        f"{_REGISTRY_NODE}::test_many_devices_at_once",
    ),
    28: (f"{_METHOD_MQTT}::test_payloads_of_every_kind_both_ways",),
    29: (f"{_REST}::test_what_azure_has_and_this_release_has_not",),
    30: (f"{_REST}::test_what_azure_has_and_this_release_has_not",),
    31: (f"{_REST}::test_what_azure_has_and_this_release_has_not",),
    32: (f"{_READERS}::test_a_reader_begins_where_it_wants",),
    33: (f"{_REST}::test_any_date_is_a_version",),
    34: (f"{_REST}::test_clocks_may_differ_by_minutes",),
    35: (f"{_FEEDBACK_REST}::test_purge_says_how_many",),
    36: (f"{_AMQP}::test_a_peer_hears_from_us_as_often_as_it_wants",),
    37: (
        f"{_HUB_EVENTS}::test_without_a_route_telemetry_is_acknowledged_and_dropped",
        "hub/test_message_route.py::test_telemetry_goes_by_a_route_or_by_the_fallback",
    ),
    38: (
        f"{_SAS}::test_event_hubs_clients_sign_with_the_text_of_the_key",
        f"{_AMQP}::test_tokens_of_all_clients",
    ),
    39: (f"{_ENDPOINT}::test_deliveries_are_settled_and_their_ids_have_no_gap",),
}

CODES: Mapping[int, Sequence[str]] = {
    400001: (f"{_ERRORS}::test_each_code_over_rest",),
    400003: (f"{_SENDING}::test_no_recipient", f"{_MODULE_REST}::test_new_keys_for_many"),
    400004: (
        f"{_ERRORS}::test_each_code_over_rest",
        f"{_SENDING}::test_what_cannot_be_read",
        f"{_TWIN_MQTT}::test_a_patch_that_breaks_a_rule_is_refused_whole_and_in_words",
    ),
    400006: (f"{_ERRORS}::test_each_code_over_rest", f"{_SENDING}::test_what_cannot_be_read"),
    400011: (f"{_REST}::test_bulk_answers_in_one_shape_whether_done_or_not",),
    400028: (f"{_ERRORS}::test_each_code_over_rest",),
    400035: (f"{_ERRORS}::test_each_code_over_rest",),
    401001: (
        f"{_ERRORS}::test_a_hub_that_is_not_here",
        "adapters/test_several_hubs.py::test_an_unknown_host_over_amqp",
    ),
    401002: (
        f"{_ERRORS}::test_each_code_over_rest",
        f"{_ENDPOINT}::test_without_a_token_nothing_opens",
        f"{_REST}::test_the_right_of_each_operation",
    ),
    401100: (f"{_ERRORS}::test_each_code_over_rest",),
    403002: (f"{_ENDPOINT}::test_five_readers_without_an_epoch",),
    403004: (f"{_SENDING}::test_a_full_queue",),
    403009: (f"{_SENDING}::test_an_expiry_that_cannot_be",),
    403012: (f"{_MQTT}::test_refusals_and_their_codes",),
    403800: (
        f"{_METHOD_MQTT}::test_a_device_has_so_many_calls_at_once",
        f"{_METHOD_MQTT}::test_so_many_wait_for_one_device",
    ),
    404000: (f"{_ERRORS}::test_each_code_over_rest",),
    404001: (
        f"{_ERRORS}::test_each_code_over_rest",
        f"{_SENDING}::test_a_device_that_is_not_there",
        f"{_TWIN_MQTT}::test_the_twin_of_a_device_that_is_gone",
    ),
    404006: (f"{_AMQP}::test_addresses_that_lead_nowhere",),
    404010: (f"{_ERRORS}::test_each_code_over_rest", f"{_SENDING}::test_a_module_that_is_not_there"),
    404103: (
        f"{_ERRORS}::test_each_code_over_rest",
        f"{_METHOD_MQTT}::test_waiting_in_vain_for_the_device_to_connect",
    ),
    404104: (f"{_METHOD_MQTT}::test_a_device_that_leaves_with_the_call",),
    405000: (f"{_ERRORS}::test_each_code_over_rest",),
    409000: ("adapters/test_faults.py::test_every_error_is_worded_in_every_protocol",),
    409001: (f"{_ERRORS}::test_each_code_over_rest",),
    409002: (f"{_ENDPOINT}::test_an_epoch_as_high_or_higher_takes_the_partition",),
    409301: (f"{_ERRORS}::test_each_code_over_rest",),
    412001: (f"{_ERRORS}::test_each_code_over_rest", f"{_TWIN_MQTT}::test_a_patch_may_count_on_a_version"),
    412002: (f"{_ERRORS}::test_each_code_over_rest",),
    413001: (f"{_ERRORS}::test_each_code_over_rest", f"{_SENDING}::test_the_size_limit"),
    413002: (f"{_ERRORS}::test_a_hub_that_is_full",),
    413003: (f"{_ERRORS}::test_a_hub_that_is_full",),
    415000: (f"{_ERRORS}::test_each_code_over_rest",),
    429001: (f"{_ERRORS}::test_what_may_pass",),
    500001: (f"{_ERRORS}::test_what_may_pass", f"{_TWIN_MQTT}::test_a_failure_of_ours_is_an_answer_too"),
    501000: (f"{_ERRORS}::test_each_code_over_rest",),
    502000: (f"{_METHOD_MQTT}::test_an_answer_that_cannot_be_handed_on",),
    503001: (f"{_ERRORS}::test_what_may_pass", f"{_TWIN_MQTT}::test_a_full_disk_is_told"),
    504101: (f"{_METHOD_MQTT}::test_a_device_that_takes_too_long",),
}

NOT_MET: Mapping[str, Sequence[int]] = {
    "another code says it more closely": (400000, 400005, 400013, 400023, 400036, 401003, 404102, 500008),
    "nothing on MQTT 3.1.1 could carry it: the timeline says so": (400027,),
    "of what is refused with 501, or by Azure's resource manager": (
        *(400012, 400014, 400015, 400016, 400017, 400018, 400019, 400020, 400100, 400101, 400102, 400103),
        *(400301, 400401, 400402, 400403, 400404, 400501, 403003, 403006, 404002, 404301),
        *(409103, 409104, 409401, 409402, 412003, 413101, 429004),
    ),
    "of what this hub does not do to anybody: quotas, tiers, suspension, throttles, faults on demand": (
        *(400029, 400030, 403001, 403005, 403010, 412004, 429002, 429003, 429005, 499000, 503005, 503008),
    ),
}
"""Codes of the lists that no client meets here, by the reason."""
