"""The Device Provisioning Service in its own words: enrollments, attestation, allocation, registrations."""
