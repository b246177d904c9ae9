// Registers one device with Microsoft's own client, as their samples do it, and says in one line of JSON how it went:
//
//   node register.js '{"transport": "Amqp", "host": …, "idScope": …, "registrationId": …, "certificate": {cert, key}}'
//
// or with "symmetricKey", or "tpm": {host, port} of a TPM simulator, instead of "certificate"; "payload" is optional.
// With "sign", a text, the TPM signs it afterwards by the key that it was given for the hub.
'use strict';

const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
const { TpmSecurityClient } = require('azure-iot-security-tpm');
const { X509Security } = require('azure-iot-security-x509');
const tss = require('tss.js');
const amqp = require('azure-iot-provisioning-device-amqp');
const http = require('azure-iot-provisioning-device-http');
const mqtt = require('azure-iot-provisioning-device-mqtt');

const TRANSPORTS = { ...amqp, ...http, ...mqtt };

const asked = JSON.parse(process.argv[2]);
function securityClient() {
  if (asked.symmetricKey) {
    return new SymmetricKeySecurityClient(asked.registrationId, asked.symmetricKey);
  }
  if (asked.tpm) {
    return new TpmSecurityClient(asked.registrationId, new tss.Tpm(true, asked.tpm.host, asked.tpm.port));
  }
  return new X509Security(asked.registrationId, asked.certificate);
}
const security = securityClient();
const transport = new TRANSPORTS[asked.transport]();
const client = ProvisioningDeviceClient.create(asked.host, asked.idScope, transport, security);
if (asked.payload !== undefined) {
  client.setProvisioningPayload(asked.payload);
}

// What each poll and request came to: the client itself tells no more than the end.
const steps = [];
for (const verb of ['registrationRequest', 'queryOperationStatus']) {
  const run = transport[verb].bind(transport);
  transport[verb] = (...args) => {
    const callback = args.pop();
    run(...args, (err, body, response, wait) => {
      steps.push({ verb, status: body && body.status, wait });
      callback(err, body, response, wait);
    });
  };
}

client.register((err, result) => {
  const error = err && { name: err.name || err.condition, message: err.message || err.description };
  const tell = (signature) => {
    console.log(JSON.stringify({ result, error, steps, signature }));
    process.exit(0);
  };
  if (err || !asked.sign) {
    return tell();
  }
  security.signWithIdentity(Buffer.from(asked.sign), (_, signed) => tell(signed && signed.toString('base64')));
});
