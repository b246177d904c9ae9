// Devices and modules at their hub. Each is called `name` in what is asked of it and what it tells.
'use strict';

const { Client, Message, ModuleClient } = require('azure-iot-device');
const transports = require('azure-iot-device-mqtt');

const devices = new Map();
const twins = new Map();

// {name, login, transport, certificate, module, ca}: connects; tells "disconnect" and "error".
exports.open = async ({ name, login, transport, certificate, module, options }, tell) => {
  const client = (module ? ModuleClient : Client).fromConnectionString(login, transports[transport]);
  for (const news of ['disconnect', 'error']) {
    client.on(news, (error) => tell(name, news, error));
  }
  if (certificate || options) {
    await client.setOptions({ ...certificate, ...options });
  }
  devices.set(name, client);
  await client.open();
};

exports.close = async ({ name }) => {
  await devices.get(name).close();
  devices.delete(name);
  twins.delete(name);
};

// {name, messages: [{body, properties, ...}], output}: one after the other; what is not told here is a member of Message.
exports.send = async ({ name, messages, output }) => {
  const client = devices.get(name);
  for (const { body, properties, ...members } of messages) {
    const message = Object.assign(new Message(body), members);
    for (const [key, value] of Object.entries(properties || {})) {
      message.properties.add(key, value);
    }
    await (output ? client.sendOutputEvent(output, message) : client.sendEvent(message));
  }
};

function shown(twin) {
  const { update, ...reported } = twin.properties.reported;
  return { desired: twin.properties.desired, reported };
}

// {name}: the twin, asked for anew.
exports.twin = async ({ name }) => {
  const twin = await devices.get(name).getTwin();
  await twin.get();
  twins.set(name, twin);
  return shown(twin);
};

// {name, path}: tells "desired" whenever the twin's desired properties change, or only those at `path`.
exports.follow = async ({ name, path }, tell) => {
  const twin = twins.get(name);
  await new Promise((resolve, reject) => {
    const enable = twin.enableTwinDesiredPropertiesUpdates.bind(twin);
    twin.enableTwinDesiredPropertiesUpdates = (done) => {
      enable((error) => {
        done(error);
        (error ? reject : resolve)(error);
      });
    };
    twin.on(['properties.desired', ...(path || [])].join('.'), (value) => tell(name, 'desired', value));
  });
};

// {name, patch}: reported properties.
exports.report = ({ name, patch }) =>
  new Promise((resolve, reject) => {
    twins.get(name).properties.reported.update(patch, (error) => (error ? reject(error) : resolve()));
  });

// {name, method, status, payload}: answers calls of `method` so; tells "method" with what was asked.
exports.answer = async ({ name, method, status, payload }, tell) => {
  const client = devices.get(name);
  const listen = client instanceof ModuleClient ? 'onMethod' : 'onDeviceMethod';
  client[listen](method, (request, response) => {
    tell(name, 'method', { method: request.methodName, payload: request.payload });
    response.send(status, payload, (error) => error && tell(name, 'error', error));
  });
};

// {name}: receives messages from the cloud and completes them; tells "message".
exports.receive = async ({ name, settle = 'complete' }, tell) => {
  const client = devices.get(name);
  client.on('message', (message) => {
    tell(name, 'message', {
      body: message.getData().toString(),
      messageId: message.messageId,
      correlationId: message.correlationId,
      to: message.to,
      properties: message.properties.propertyList,
    });
    client[settle](message, (error) => error && tell(name, 'error', error));
  });
};
