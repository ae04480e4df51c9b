//! Floor 2: which filters match a topic, which nodes have them, who subscribes here.
