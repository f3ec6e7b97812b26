"""Climate in a classroom: its air, and the water that the radiators get."""

from lamppost import Node
from lamppost.drivers.bme280 import BME280
from lamppost.drivers.ds18b20 import DS18B20

node = Node.from_config()
node.observe(BME280(node.i2c()), every=60)
# One DS18B20 on the bus needs no address; of several, each is named: DS18B20(bus, rom="28a1b2c3d4e5f6ac").
node.observe(DS18B20(node.onewire(), observed_property="water_temperature"), every=60)
node.run()
