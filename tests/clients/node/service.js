// The client of back ends that talks to devices: messages with their feedback over AMQP, methods over HTTPS.
'use strict';

const { Amqp, AmqpWs, Client } = require('azure-iothub');
const { Message } = require('azure-iot-common');

const TRANSPORTS = { Amqp, AmqpWs };
const clients = new Map();

exports.open = async ({ name, login, transport }) => {
  const client = Client.fromConnectionString(login, TRANSPORTS[transport]);
  await client.open();
  clients.set(name, client);
};

exports.close = async ({ name }) => {
  await clients.get(name).close();
  clients.delete(name);
};

// {name, device, message: {body, properties, ...}}: what is not told here is a member of Message.
exports.send = async ({ name, device, message: { body, properties, ...members } }) => {
  const message = Object.assign(new Message(body), members);
  for (const [key, value] of Object.entries(properties || {})) {
    message.properties.add(key, value);
  }
  await clients.get(name).send(device, message);
};

// {name}: tells "feedback", each record by itself.
exports.feedback = async ({ name }, tell) => {
  const { result: receiver } = await clients.get(name).getFeedbackReceiver();
  receiver.on('message', (message) => {
    for (const record of JSON.parse(message.data)) {
      tell(name, 'feedback', record);
    }
  });
  receiver.on('errorReceived', (error) => tell(name, 'error', error));
};

// {name, device, module, call: {methodName, payload, …}}: status and payload that the device answered.
exports.invoke = async ({ name, device, module, call }) => {
  const { result } = await clients.get(name).invokeDeviceMethod(...[device, module, call].filter((part) => part));
  return result;
};
